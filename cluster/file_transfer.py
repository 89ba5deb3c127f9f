"""Files that other machines need: identified by hash, fetched once per machine, and cached."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..files.atomic_write import atomic_write
from ..files.cache_folder import cache_dir
from ..files.file_lock import lock_file
from ..files.hashing import file_sha256

CHUNK_BYTES = 16 << 20
_FOLDER = "fetched"

ReadChunk = Callable[[str, int], bytes]  # (path at the sender, offset) -> at most CHUNK_BYTES from there


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on its sender's machine.

    Attributes:
        path: path on that machine.
        nbytes: size in bytes.
        sha256: SHA-256 in hexadecimal.
    """

    path: str
    nbytes: int
    sha256: str

    @classmethod
    def from_path(cls, path: Path) -> "RemoteFile":
        """Describe a file on this machine, the sender's."""
        return cls(str(path.absolute()), path.stat().st_size, file_sha256(path))

    def fetch(self, read: ReadChunk) -> Path:
        """Return the file on this machine: at its own path, in the cache, or downloaded to the cache.

        Args:
            read: downloads a chunk.

        Raises:
            FileError: the download does not match the hash.
            OutputError: it cannot be written.
        """
        if self._matches(Path(self.path)):
            return Path(self.path)
        folder = cache_dir() / _FOLDER
        cached = folder / f"{self.sha256}.gguf"
        try:
            folder.mkdir(exist_ok=True)
            with (folder / f"{self.sha256}.lock").open("ab") as lock:
                lock_file(lock, wait=True)  # one worker per machine downloads, the others wait
                if not self._matches(cached):
                    self._download(cached, read)
        except OSError as error:
            raise FileError(f"{cached}: cannot fetch: {error.strerror or error}") from None
        return cached

    def _matches(self, path: Path) -> bool:
        try:
            return path.stat().st_size == self.nbytes and file_sha256(path) == self.sha256
        except OSError:
            return False

    def _download(self, target: Path, read: ReadChunk) -> None:
        digest = hashlib.sha256()
        with atomic_write(target) as file:
            while file.tell() < self.nbytes and (chunk := read(self.path, file.tell())):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != self.sha256:
                raise FileError(f"{self.path}: the download has another SHA-256: the file has changed")


def read_chunk(path: str, offset: int) -> bytes:
    """Read up to CHUNK_BYTES of a file; empty at its end."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)
