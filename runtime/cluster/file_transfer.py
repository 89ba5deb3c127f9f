"""A file that other machines need: told by its hash, fetched once a machine, and kept in its cache."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelFileError
from ...files.atomic_write import atomic_write
from ...files.cache_folder import cache_dir
from ...files.hashing import file_sha256

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

CHUNK_BYTES = 16 << 20
_FOLDER = "fetched"

Read = Callable[[str, int], bytes]  # a parcel's hash, and an offset: at most CHUNK_BYTES from there


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its sender has it.

    Attributes:
        path: where it lies there.
        nbytes: its size.
        sha256: its hash, in hexadecimal.
    """

    path: str
    nbytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "RemoteFile":
        """That of a file here."""
        return cls(str(path.absolute()), path.stat().st_size, file_sha256(path))

    def unpack(self, read: Read) -> Path:
        """The file on this machine: where its sender has it, in the cache, or fetched into that now.

        Args:
            read: what fetches a chunk of it.

        Raises:
            ModelFileError: what is fetched is not it, or it cannot be written here.
        """
        here = Path(self.path)
        if self._is(here):
            return here
        folder = cache_dir() / _FOLDER
        kept = folder / f"{self.sha256}.gguf"
        try:
            folder.mkdir(exist_ok=True)
            with (folder / f"{self.sha256}.lock").open("ab") as lock:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker of a machine fetches, others wait
                if not self._is(kept):
                    self._fetch(kept, read)
        except OSError as error:
            raise ModelFileError(f"{kept}: cannot be fetched: {error.strerror or error}") from None
        return kept

    def _is(self, path: Path) -> bool:
        """Whether a file is it, as far as it can be read."""
        try:
            return path.stat().st_size == self.nbytes and file_sha256(path) == self.sha256
        except OSError:
            return False

    def _fetch(self, target: Path, read: Read) -> None:
        digest = hashlib.sha256()
        with atomic_write(target) as file:
            while file.tell() < self.nbytes:
                chunk = read(self.sha256, file.tell())
                if not chunk:
                    break
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != self.sha256:
                raise ModelFileError(f"{self.path}: what came of it has another hash: the file has changed")


def read_chunk(path: str, offset: int) -> bytes:
    """Some bytes of a file, at most CHUNK_BYTES; none at its end."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)
