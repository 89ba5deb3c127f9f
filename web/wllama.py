"""wllama (llama.cpp for browsers): its files from the npm package.

wllama is not bundled: it is a 10 MB build of another project, and few users of this package need it.
"""

import io
import tarfile
from pathlib import Path

from .npm_archive import NpmArchive

VERSION = "3.13.0"

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
