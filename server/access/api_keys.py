"""API keys that authorize clients."""

import os
import re
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
KEY_CHARS_MIN = 20  # about 100 bits, if they are random
_LINE = re.compile(
    r"(?:(?P<metrics>metrics):|(?P<name>[A-Za-z][\w.-]*):[ \t])?[ \t]*(?P<key>.*)", re.A | re.S
)


class ApiKeys:
    """API keys, stored as hashes and compared in constant time.

    A key either asks the model or reads the metrics, which tell what all clients together do.

    Attributes:
        path: the file that they are from, if there is one.
    """

    def __init__(self, keys: Iterable[str], metrics_keys: Iterable[str] = ()) -> None:
        self.path: Path | None = None
        # By hash: how the log names each.
        self._names = {sha256(key.encode()).digest(): f"key {n}" for n, key in enumerate(keys, 1)}
        self._metrics_hashes = [sha256(key.encode()).digest() for key in metrics_keys]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        r"""Read keys from a text file, one per line; blank lines and lines that start with # are ignored.

        A line `NAME: KEY` names a key, for the log. A line `metrics: KEY` has a key that reads the metrics.
        Lines end with \n or \r\n; other characters that Unicode takes for line ends are part of a key.

        Raises:
            FileError: the file is unreadable, too large, not UTF-8, lacks a key, or has a short one.
        """
        keys = cls(())
        keys.path = path
        keys.reload()
        return keys

    def reload(self) -> None:
        """Read the file again, if there is one; an error, as of from_file(), leaves the keys as they were."""
        if self.path is None:
            return
        text = decode_utf8(read_bounded(self.path, FILE_BYTES_MAX), str(self.path)).removeprefix("\ufeff")
        names: dict[bytes, str] = {}
        metrics: list[bytes] = []
        for number, line in enumerate(text.split("\n"), 1):
            if not (line := line.strip(" \t\r")) or line.startswith("#"):
                continue
            found = _LINE.fullmatch(line)
            assert found, "the pattern takes any line"
            if len(key := found["key"]) < KEY_CHARS_MIN:
                needed = f"at least {KEY_CHARS_MIN} are needed, as secrets.token_urlsafe(32) of Python has"
                raise FileError(f"{self.path} line {number}: a key of {len(key)} characters, {needed}")
            digest = sha256(key.encode()).digest()
            if found["metrics"]:
                metrics.append(digest)
            else:
                names[digest] = found["name"] or f"line {number}"
        if not names:
            raise FileError(f"{self.path}: contains no key")
        self._names, self._metrics_hashes = names, metrics

    @staticmethod
    def warnings(path: Path) -> list[str]:
        """Warn of a key file that other users of this machine can read; Windows has no such modes."""
        with suppress(OSError):
            if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
                return [f"{path}: every user of this machine can read these keys: chmod 600 {path}"]
        return []

    def identify(self, authorization: bytes) -> str | None:
        """Id of the key in an Authorization header ("Bearer KEY"), None if it is none of the keys.

        The id does not tell the key: it is a hash of the hash.
        """
        digest = _identify(authorization, self._names)
        return None if digest is None else sha256(digest).hexdigest()

    def name(self, key_id: str) -> str | None:
        """How the log names the key with an id: as the file does, or by its line."""
        return next((name for one, name in self._names.items() if sha256(one).hexdigest() == key_id), None)

    def reads_metrics(self, authorization: bytes) -> bool:
        """Whether the key in an Authorization header reads the metrics."""
        return _identify(authorization, self._metrics_hashes) is not None


def _identify(authorization: bytes, hashes: Iterable[bytes]) -> bytes | None:
    scheme, _, key = authorization.strip().partition(b" ")
    digest = sha256(key.strip()).digest()
    matches = [compare_digest(digest, known) for known in hashes]  # no early exit: constant time
    return digest if scheme.lower() == b"bearer" and any(matches) else None
