"""API keys that authorize clients, from a file."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from ...errors import FileError
from ...files.json_file import decode_utf8, read_bounded
from .key_limits import ApiKey, KeyLimits, KeyUsage
from .request_limits import describe_error

FILE_BYTES_MAX = 1 << 20
KEY_CHARS_MIN = 20  # about 100 bits, if they are random
_LINE = re.compile(
    r"(?:(?P<metrics>metrics):|(?P<name>[A-Za-z][\w.-]*):[ \t])?[ \t]*(?P<key>[^ \t]*)(?P<limits>.*)",
    re.A | re.S,
)


class ApiKeys:
    """API keys, stored as hashes and compared in constant time.

    A key either asks the model or reads the metrics, which tell what all clients together do.

    Attributes:
        path: the file that they are from, if there is one.
        usage: what the keys have used.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.path: Path | None = None
        self.usage = KeyUsage()
        digests = [sha256(key.encode()).digest() for key in keys]
        self._keys = {digest: _api_key(digest, f"key {n}", {}) for n, digest in enumerate(digests, 1)}
        self._metrics_keys: list[bytes] = []

    @classmethod
    def from_file(cls, path: Path) -> Self:
        r"""Read keys from a text file, one per line; blank lines and lines that start with # are ignored.

        A line `NAME: KEY` names a key, for the log. A line `metrics: KEY` has a key that reads the metrics.
        Limits may stand behind a key: `NAME: KEY requests_per_minute=60 adapters=math`; see KeyLimits. Lines
        end with \n or \r\n; other characters that Unicode takes for line ends are part of a key.
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
        keys: dict[bytes, ApiKey] = {}
        metrics_keys: list[bytes] = []
        for number, line in enumerate(text.split("\n"), 1):
            if not (line := line.strip(" \t\r")) or line.startswith("#"):
                continue
            found = _LINE.fullmatch(line)
            assert found, "the pattern takes any line"
            place = f"{self.path} line {number}"
            if len(key := found["key"]) < KEY_CHARS_MIN:
                needed = f"at least {KEY_CHARS_MIN} are needed, as secrets.token_urlsafe(32) of Python has"
                raise FileError(f"{place}: a key of {len(key)} characters, {needed}")
            digest = sha256(key.encode()).digest()
            if found["metrics"]:
                metrics_keys.append(digest)
                continue
            limits = dict(word.partition("=")[::2] for word in found["limits"].split())
            try:
                keys[digest] = _api_key(digest, found["name"] or f"line {number}", limits)
            except ValidationError as error:
                raise FileError(f"{place}: {describe_error(error, KeyLimits)}") from None
        if not keys:
            raise FileError(f"{self.path}: contains no key")
        self._keys, self._metrics_keys = keys, metrics_keys

    @staticmethod
    def warnings(path: Path) -> list[str]:
        """Warn of a key file that other users of this machine can read; Windows has no such modes."""
        with suppress(OSError):
            if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
                return [f"{path}: every user of this machine can read these keys: chmod 600 {path}"]
        return []

    def identify(self, authorization: bytes) -> ApiKey | None:
        """The key in an Authorization header ("Bearer KEY"), None if it is none of the keys."""
        return self._keys.get(_matching(authorization, self._keys))

    def reads_metrics(self, authorization: bytes) -> bool:
        """Whether the key in an Authorization header reads the metrics."""
        return bool(_matching(authorization, self._metrics_keys))


def _api_key(digest: bytes, name: str, limits: Mapping[str, Any]) -> ApiKey:
    return ApiKey(name, sha256(digest).hexdigest(), KeyLimits.model_validate(limits))


def _matching(authorization: bytes, hashes: Iterable[bytes]) -> bytes:
    """The hash of the key in an Authorization header if it is one of these, else nothing."""
    scheme, _, key = authorization.strip().partition(b" ")
    digest = sha256(key.strip()).digest()
    matches = [compare_digest(digest, known) for known in hashes]  # no early exit: constant time
    return digest if scheme.lower() == b"bearer" and any(matches) else b""
