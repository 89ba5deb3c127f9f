"""API keys from a file: who they are, what they may use, and what they have used."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import time
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import FileError, shorten
from ..files.json_file import decode_utf8, read_bounded
from .http_errors import HttpError

FILE_BYTES_MAX = 1 << 20
KEY_CHARS_MIN = 20  # about 100 bits, if they are random
METRICS = "metrics"  # the name of a key that reads the metrics


class KeyLimits(BaseModel):
    """What a key may use; None is no limit. The key file has these names, as `tokens_per_day=100000`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    adapters: Annotated[tuple[str, ...] | None, BeforeValidator(lambda names: names.split(","))] = None


class ApiKey(NamedTuple):
    """A key that may ask the model."""

    name: str  # how the log and the metrics name it
    namespace: str  # its namespace of the prefix cache; a hash of the key's hash
    limits: KeyLimits

    def check_adapter(self, model: str, adapter: str) -> None:
        """Raise HttpError 403 if the key may not use the adapter of this name, that of a served model."""
        if self.limits.adapters is not None and adapter not in self.limits.adapters:
            raise HttpError(403, f"this API key may not use the model {model!r}", param="model")


ANYONE = ApiKey("", "", KeyLimits())  # clients of a server without keys, and of public paths
_PERIODS = {"requests_per_minute": 60, "tokens_per_day": 86_400}  # in seconds; a day is one of UTC


class ApiKeys:
    """API keys by their hashes, and what they have used since the start.

    Attributes:
        path: the file that they are from, if there is one.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.path: Path | None = None
        self._keys = {_digest(key): _api_key(key, f"key {n}") for n, key in enumerate(keys, 1)}
        self._used = Counter[tuple[str, str, int]]()  # by namespace, limit and number of its period

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
        for number, line in enumerate(text.split("\n"), 1):
            words = re.split(r"[ \t]+", line.strip(" \t\r"))
            if not words[0] or words[0].startswith("#"):
                continue
            name = words.pop(0)[:-1] if words[0].endswith(":") else f"line {number}"
            key, *limits = words or [""]
            place = f"{self.path} line {number}"
            if len(key) < KEY_CHARS_MIN:
                needed = f"at least {KEY_CHARS_MIN} are needed, as secrets.token_urlsafe(32) of Python has"
                raise FileError(f"{place}: a key of {len(key)} characters, {needed}")
            try:
                keys[_digest(key)] = _api_key(key, name, limits)
            except ValidationError as error:
                raise FileError(f"{place}: {describe_error(error, KeyLimits)}") from None
        if all(key.name == METRICS for key in keys.values()):
            raise FileError(f"{self.path}: contains no key")
        self._keys = keys

    @staticmethod
    def warnings(path: Path) -> list[str]:
        """Warn of a key file that other users of this machine can read; Windows has no such modes."""
        with suppress(OSError):
            if os.name == "posix" and path.stat().st_mode & stat.S_IROTH:
                return [f"{path}: every user of this machine can read these keys: chmod 600 {path}"]
        return []

    def identify(self, authorization: bytes) -> ApiKey | None:
        """The key in an Authorization header ("Bearer KEY"), None if it is none of the keys."""
        scheme, _, key = authorization.strip().partition(b" ")
        return self._keys.get(sha256(key.strip()).digest()) if scheme.lower() == b"bearer" else None

    def admit(self, key: ApiKey) -> None:
        """Count a request of a key; HttpError 429 if the key has used what it may in this minute or day."""
        now = time()
        for name, period_s in _PERIODS.items():
            most, used = getattr(key.limits, name), self._used[key.namespace, name, int(now // period_s)]
            if most and used >= most:
                wait_s = {"Retry-After": str(ceil(period_s - now % period_s))}
                message = f"this API key has used its {most} {name.replace('_', ' ')}"
                raise HttpError(429, message, headers=wait_s)
        self._add(key, "requests_per_minute", 1)

    def add_tokens(self, key: ApiKey, tokens: int) -> None:
        """Count tokens of prompts and answers."""
        self._add(key, "tokens_per_day", tokens)

    def _add(self, key: ApiKey, name: str, count: int) -> None:
        period = int(time() // _PERIODS[name])
        for earlier in [one for one in self._used if one[1] == name and one[2] != period]:
            del self._used[earlier]
        self._used[key.namespace, name, period] += count


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _api_key(key: str, name: str, limits: Iterable[str] = ()) -> ApiKey:
    given = dict(limit.partition("=")[::2] for limit in limits)
    return ApiKey(name, sha256(_digest(key)).hexdigest(), KeyLimits.model_validate(given))


def describe_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error in a file's values for this model, as one sentence."""
    problem = error.errors(include_url=False)[0]
    key, value = problem["loc"][0], shorten(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not one of {', '.join(model.model_fields)}"
    return f"{key} {problem['msg'].replace('Input should', 'must')}, not {value}"
