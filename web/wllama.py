"""wllama (llama.cpp for browsers): download from npm, hash check, extraction.

wllama is not bundled: it is a 10 MB build of another project, and few users of this package need it. It is
downloaded with `npm pack`, because npm knows the user's registry mirror and proxy.
"""

import io
import shutil
import subprocess
import tarfile
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

from ..errors import DownloadError
from ..files.atomic_write import atomic_write
from ..files.cache_folder import cache_dir
from ..files.temporary_folder import temporary_folder

VERSION = "3.13.0"
_ARCHIVE_NAME = f"wllama-{VERSION}.tgz"
_SHA512 = "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA=="
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
        DownloadError: the archive is unreadable, has the wrong hash, or cannot be downloaded.
    """
    content = _read_verified(archive or _cached_archive())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {path: tar.extractfile(path) for path in _FILES}
        return {_FILES[path]: file.read() for path, file in members.items() if file}


def _read_verified(archive: Path) -> bytes:
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise DownloadError(f"{archive}: {error.strerror or error}") from None
    digest = b64encode(sha512(content).digest()).decode()
    if digest != _SHA512:
        raise DownloadError(f"{archive}: sha512 {digest}, expected {_SHA512} of wllama {VERSION}")
    return content


def _cached_archive() -> Path:
    cached = cache_dir() / _ARCHIVE_NAME
    if not cached.exists():
        with temporary_folder("wllama") as folder:
            content = _read_verified(_download(folder))
        with atomic_write(cached) as file:
            file.write(content)
    return cached


def _download(folder: Path) -> Path:
    npm = shutil.which("npm")
    package = f"@wllama/wllama@{VERSION}"
    if npm is None:
        raise DownloadError(f"{package}: npm is not installed; give the package's archive with --wllama FILE")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), package]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own command
    archive = next(folder.glob("*.tgz"), None)
    if result.returncode or archive is None:
        reason = (result.stderr.strip().splitlines() or ["no error message"])[-1]
        raise DownloadError(f"{package}: npm pack failed: {reason}")
    return archive
