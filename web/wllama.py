"""wllama (llama.cpp for browsers), from the npm package: 10 MB of another project that few users need."""

import io
import subprocess
import tarfile
from base64 import b64encode
from hashlib import sha512
from pathlib import Path

from ..errors import FileError, OptionError, as_line
from ..files.cache_folder import cache_dir
from ..files.json_file import read_bounded

PACKAGE = "@wllama/wllama@3.13.0"
_SHA512 = "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA=="
_FILES = ("esm/index.min.js", "esm/wasm/wllama.wasm", "LICENCE")
_BYTES_MAX = 1 << 26  # of an archive
_IN_FILE_NAME = str.maketrans("/@", "--")  # as npm names it


def wllama_files(archive: Path | None = None) -> dict[str, bytes]:
    """Files of wllama that a site needs, by name.

    Args:
        archive: the .tgz of the npm package; by default it is downloaded once and cached.

    Raises:
        FileError: the archive is unreadable, has the wrong hash, or cannot be downloaded.
    """
    return npm_files(archive or cached_archive(PACKAGE), _SHA512, _FILES)


def npm_files(archive: Path, expected: str, paths: tuple[str, ...]) -> dict[str, bytes]:
    """Files of an npm package's archive by name; `expected` is its SHA-512 in base64, as npm publishes it."""
    content = read_bounded(archive, _BYTES_MAX)
    if (digest := b64encode(sha512(content).digest()).decode()) != expected:
        raise FileError(f"{archive}: sha512 {digest}, expected {expected}")
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = {Path(path).name: tar.extractfile(f"package/{path}") for path in paths}
        return {name: file.read() for name, file in members.items() if file}


def cached_archive(package: str) -> Path:
    """The archive of `name@version` in the cache, by `npm pack`, which knows the user's mirror."""
    cached = cache_dir() / f"{package.removeprefix('@').translate(_IN_FILE_NAME)}.tgz"
    if cached.exists():
        return cached
    command = ["npm", "pack", "--loglevel=error", "--pack-destination", str(cached.parent), package]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - own command
    except FileNotFoundError:
        reason = f"missing, an archive of {package}: npm is not installed, which would fetch it"
        raise OptionError("wllama", reason) from None
    if result.returncode:
        raise FileError(f"{package}: npm pack failed: {as_line(result.stderr)[:300]}")
    return cached
