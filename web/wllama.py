"""wllama, llama.cpp for browsers, as its authors publish it on npm: fetched once, and only if it is that.

It is not part of this package: ten megabytes of somebody else's build, which few who install it will need.
npm fetches it, since npm knows its user's mirror and proxy; an archive can also be given by hand.
"""

import io
import shutil
import subprocess
import tarfile
from base64 import b64encode
from hashlib import sha512
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import DownloadError
from ..files.cache_folder import cache_dir

VERSION = "3.13.0"
_NAME = f"wllama-{VERSION}.tgz"
_SHA512 = "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA=="
_FILES = {  # in the archive, and in the page's folder
    "package/esm/index.min.js": "index.min.js",
    "package/esm/wasm/wllama.wasm": "wllama.wasm",
    "package/LICENCE": "LICENCE",
}


def wllama_files(archive: Path | None = None) -> dict[str, bytes]:
    """The files that the page needs, by name.

    Args:
        archive: the npm package's .tgz; by default the cached one, or else npm's.

    Raises:
        DownloadError: it is not the one that is pinned here, or npm cannot fetch it.
    """
    content = _checked(archive or _cached())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {name: tar.extractfile(name) for name in _FILES}
        return {_FILES[name]: file.read() for name, file in members.items() if file}


def _checked(archive: Path) -> bytes:
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise DownloadError(f"{archive}: {error.strerror or error}") from None
    found = b64encode(sha512(content).digest()).decode()
    if found != _SHA512:
        raise DownloadError(f"{archive}: its sha512 is {found}, not {_SHA512} as wllama {VERSION}'s")
    return content


def _cached() -> Path:
    kept = cache_dir() / _NAME
    if not kept.exists():
        with TemporaryDirectory(dir=cache_dir()) as folder:
            fetched = _fetched(Path(folder))
            _checked(fetched)
            fetched.replace(kept)
    return kept


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    wanted = f"@wllama/wllama@{VERSION}"
    if npm is None:
        raise DownloadError(f"{wanted}: npm is not installed; give the package's archive with --wllama FILE")
    command = [npm, "pack", "--silent", "--pack-destination", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    found = next(folder.glob("*.tgz"), None)
    if done.returncode or found is None:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DownloadError(f"{wanted}: npm could not fetch it: {last}")
    return found
