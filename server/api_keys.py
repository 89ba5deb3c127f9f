"""API keys from a file: who they are, what they may use, and what they have used."""

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import time
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import FileError, shorten
from ..files.json_file import decode_utf8, read_bounded
from .http_errors import HttpError

FILE_BYTES_MAX = 1 << 20
KEY_CHARS_MIN = 20  # about 100 bits, if they are random
METRICS = "metrics"  # the name of a key that reads the metrics
_MINUTE_S, _DAY_S = 60, 86_400


class KeyLimits(BaseModel):
    """What a key may use; None is no limit. The key file has these names, as `tokens_per_day=100000`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    adapters: Annotated[tuple[str, ...] | None, BeforeValidator(lambda names: names.split(","))] = None


@dataclass(frozen=True)
class ApiKey:
    """A key that may ask the model.

    Attributes:
        name: how the log and the metrics name it.
        namespace: its namespace of the prefix cache; a hash of the key's hash.
        limits: what it may use.
    """

    name: str
    namespace: str
    limits: KeyLimits

    def check_adapter(self, model: str, adapter: str) -> None:
        """Raise HttpError 403 if the key may not use the adapter of this name, that of a served model."""
        if self.limits.adapters is not None and adapter not in self.limits.adapters:
            raise HttpError(403, f"this API key may not use the model {model!r}", param="model")


ANYONE = ApiKey("", "", KeyLimits())  # clients of a server without keys, and of public paths


class ApiKeys:
    """API keys by their hashes, and what they have used since the start.

    Attributes:
        path: the file that they are from, if there is one.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.path: Path | None = None
        self._keys = {_digest(key): _api_key(key, f"key {n}") for n, key in enumerate(keys, 1)}
        self._requests: dict[str, deque[float]] = {}
        self._day, self._tokens = 0, Counter[str]()

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
        """Count a request of a key.

        Raises:
            HttpError: 429 the key has used what it may.
        """
        now, limits = time(), key.limits
        if limits.tokens_per_day and self._today(now)[key.namespace] >= limits.tokens_per_day:
            message = f"this API key has used its {limits.tokens_per_day} tokens of this day (UTC)"
            raise _exhausted(message, _DAY_S - now % _DAY_S)
        if limits.requests_per_minute:
            times = self._requests.setdefault(key.namespace, deque())
            while times and times[0] <= now - _MINUTE_S:
                times.popleft()
            if len(times) >= limits.requests_per_minute:
                message = f"this API key may send {limits.requests_per_minute} requests per minute"
                raise _exhausted(message, times[0] + _MINUTE_S - now)
            times.append(now)

    def add_tokens(self, key: ApiKey, tokens: int) -> None:
        """Count tokens of prompts and answers."""
        self._today(time())[key.namespace] += tokens

    def _today(self, now: float) -> Counter[str]:
        if (day := int(now // _DAY_S)) != self._day:
            self._day, self._tokens = day, Counter()
        return self._tokens


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()


def _api_key(key: str, name: str, limits: Iterable[str] = ()) -> ApiKey:
    given = dict(limit.partition("=")[::2] for limit in limits)
    return ApiKey(name, sha256(_digest(key)).hexdigest(), KeyLimits.model_validate(given))


def _exhausted(message: str, seconds: float) -> HttpError:
    return HttpError(429, message, headers={"Retry-After": str(max(ceil(seconds), 1))})


def describe_error(error: ValidationError, model: type[BaseModel]) -> str:
    """The first error in a file's values for this model, as one sentence."""
    problem = error.errors(include_url=False)[0]
    key, value = problem["loc"][0], shorten(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not one of {', '.join(model.model_fields)}"
    return f"{key} {problem['msg'].replace('Input should', 'must')}, not {value}"
