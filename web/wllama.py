"""wllama (llama.cpp for browsers): its files from the npm package.

wllama is not bundled: it is a 10 MB build of another project, and few users of this package need it. Its
archive is downloaded once with `npm pack`, which knows the user's registry mirror and proxy, cached, and
accepted only by its hash.
"""

import io
import re
import shutil
import subprocess
import tarfile
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha512
from pathlib import Path

from ..errors import FileError, OptionError
from ..files.atomic_write import write_file
from ..files.cache_folder import cache_dir
from ..files.json_file import read_bounded
from ..files.temporary_folder import temporary_folder

VERSION = "3.13.0"
_BYTES_MAX = 1 << 26  # of an archive
_ERROR_CODE = re.compile(r"npm (error|ERR!) (code|errno|syscall|type) ")


@dataclass(frozen=True, slots=True)
class NpmArchive:
    """The archive of one version of an npm package.

    Attributes:
        package: name of the package, with its scope.
        version: the version.
        sha512: hash of the .tgz in base64, as npm publishes it.
    """

    package: str
    version: str
    sha512: str

    def read(self, path: Path | None = None) -> bytes:
        """Content of the .tgz, from a file; by default it is downloaded once and cached.

        Raises:
            FileError: the file is unreadable, has the wrong hash, or cannot be downloaded.
        """
        return self._read_verified(path or self._cached())

    def _read_verified(self, path: Path) -> bytes:
        content = read_bounded(path, _BYTES_MAX)
        digest = b64encode(sha512(content).digest()).decode()
        if digest != self.sha512:
            expected = f"{self.sha512} of {self.package} {self.version}"
            raise FileError(f"{path}: sha512 {digest}, expected {expected}")
        return content

    def _cached(self) -> Path:
        cached = cache_dir() / f"{self.package.rpartition('/')[2]}-{self.version}.tgz"
        if not cached.exists():
            with temporary_folder("npm") as folder:
                content = self._read_verified(self._download(folder))
            write_file(cached, content)
        return cached

    def _download(self, folder: Path) -> Path:
        npm = shutil.which("npm")
        package = f"{self.package}@{self.version}"
        if npm is None:
            reason = f"missing, an archive of {package}: npm is not installed, which would fetch it"
            raise OptionError("wllama", reason)
        command = [npm, "pack", "--loglevel=error", "--pack-destination", str(folder), package]
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own command
        archive = next(folder.glob("*.tgz"), None)
        if result.returncode or archive is None:
            lines = [line for line in result.stderr.strip().splitlines() if not _ERROR_CODE.match(line)]
            raise FileError(f"{package}: npm pack failed: {lines[0] if lines else 'no error message'}")
        return archive


_ARCHIVE = NpmArchive(
    "@wllama/wllama",
    VERSION,
    "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA==",
)
_FILES = {  # path in the archive: name on the site
    "package/esm/index.min.js": "index.min.js",
    "package/esm/wasm/wllama.wasm": "wllama.wasm",
    "package/LICENCE": "LICENCE",
}


def wllama_files(archive: Path | None = None) -> dict[str, bytes]:
    """Files of wllama that a site needs, by name.

    Args:
        archive: the .tgz of the npm package; by default it is downloaded once and cached.

    Raises:
        FileError: the archive is unreadable, has the wrong hash, or cannot be downloaded.
    """
    with tarfile.open(fileobj=io.BytesIO(_ARCHIVE.read(archive))) as tar:
        members = {path: tar.extractfile(path) for path in _FILES}
        return {_FILES[path]: file.read() for path, file in members.items() if file}
