"""API keys that authorize clients."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Self

from ...errors import FileError
from ...files.json_file import decode_utf8, read_bounded

FILE_BYTES_MAX = 1 << 20
_METRICS = "metrics:"


class ApiKeys:
    """API keys, stored as hashes and compared in constant time.

    A key either asks the model or reads the metrics, which tell what all clients together do.
    """

    def __init__(self, keys: Iterable[str], metrics_keys: Iterable[str] = ()) -> None:
        self._hashes = [sha256(key.encode()).digest() for key in keys]
        self._metrics_hashes = [sha256(key.encode()).digest() for key in metrics_keys]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        r"""Read keys from a text file, one per line; blank lines and lines that start with # are ignored.

        A line `metrics: KEY` has a key that reads the metrics. Lines end with \n or \r\n; other characters
        that Unicode takes for line ends are part of a key.

        Raises:
            FileError: the file is unreadable, too large, not UTF-8, or lacks a key.
        """
        text = decode_utf8(read_bounded(path, FILE_BYTES_MAX), str(path)).removeprefix("\ufeff")
        lines = [line.strip(" \t\r") for line in text.split("\n")]
        keys = [line for line in lines if line and not line.startswith(("#", _METRICS))]
        metrics_keys = [line.removeprefix(_METRICS).strip() for line in lines if line.startswith(_METRICS)]
        if not keys:
            raise FileError(f"{path}: contains no key")
        if not all(metrics_keys):
            raise FileError(f"{path}: a line {_METRICS} has no key")
        return cls(keys, metrics_keys)

    @staticmethod
    def warnings(path: Path) -> list[str]:
        """Warn of a key file that other users of this machine can read; Windows has no such modes."""
        with suppress(OSError):
            if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
                return [f"{path}: every user of this machine can read these keys: chmod 600 {path}"]
        return []

    def identify(self, authorization: bytes) -> str | None:
        """Name of the key in an Authorization header ("Bearer KEY"), None if it is none of the keys.

        The name does not tell the key: it is a hash of the hash.
        """
        return _identify(authorization, self._hashes)

    def reads_metrics(self, authorization: bytes) -> bool:
        """Whether the key in an Authorization header reads the metrics."""
        return _identify(authorization, self._metrics_hashes) is not None


def _identify(authorization: bytes, hashes: list[bytes]) -> str | None:
    scheme, _, key = authorization.strip().partition(b" ")
    digest = sha256(key.strip()).digest()
    matches = [compare_digest(digest, known) for known in hashes]  # no early exit: constant time
    return sha256(digest).hexdigest() if scheme.lower() == b"bearer" and any(matches) else None
