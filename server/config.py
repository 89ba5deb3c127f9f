"""Who may use a server, and how much: its address, API keys from a file, and the limits of requests."""

import ipaddress
import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from time import time
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import FileError, OptionError, RequestError, shorten
from ..files.json_file import decode_utf8, read_bounded
from ..runtime.engine_options import QUEUE
from .http_errors import HttpError

FILE_BYTES_MAX = 1 << 20  # of keys or limits
KEY_CHARS_MIN = 20  # about 100 bits, if they are random
METRICS = "metrics"  # the name of a key that reads the metrics


class KeyLimits(BaseModel):
    """The limits of a key; None is no limit. The key file has these names, as `tokens_per_day=100000`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_day: int | None = Field(default=None, ge=1)
    adapters: Annotated[tuple[str, ...] | None, BeforeValidator(lambda names: names.split(","))] = None


class ApiKey(NamedTuple):
    """A key that may ask the model."""

    name: str  # how the log and the metrics name it
    namespace: str  # its namespace of the prefix cache; a hash of the key's hash
    limits: KeyLimits


ANYONE = ApiKey("", "", KeyLimits())  # clients of a server without keys, and of public paths
_PERIODS = {"requests_per_minute": 60, "tokens_per_day": 86_400}  # in seconds; a day is one of UTC


class ApiKeys:
    """API keys by their hashes, and what they have used since the start."""

    def __init__(self, path: Path) -> None:
        r"""Read keys from a text file, one per line; blank lines and lines that start with # are ignored.

        A line `NAME: KEY` names a key, for the log. A line `metrics: KEY` has a key that reads the metrics.
        Limits may stand behind a key: `NAME: KEY requests_per_minute=60 adapters=math`; see KeyLimits. Lines
        end with \n or \r\n; other characters that Unicode takes for line ends are part of a key.
        """
        self._path = path
        self._used = Counter[tuple[str, str, int]]()  # by namespace, limit and number of its period
        self.reload()

    def reload(self) -> None:
        """Read the file again; a FileError leaves the keys as they were."""
        text = _read(self._path).removeprefix("\ufeff")
        keys: dict[bytes, ApiKey] = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = re.split(r"[ \t]+", line.strip(" \t\r"))
            if not words[0] or words[0].startswith("#"):
                continue
            name = words.pop(0)[:-1] if words[0].endswith(":") else f"line {number}"
            key, *limits = words or [""]
            place = f"{self._path} line {number}"
            if len(key) < KEY_CHARS_MIN:
                needed = f"at least {KEY_CHARS_MIN} are needed, as secrets.token_urlsafe(32) of Python has"
                raise FileError(f"{place}: a key of {len(key)} characters, {needed}")
            try:
                given = KeyLimits.model_validate(dict(limit.partition("=")[::2] for limit in limits))
            except ValidationError as error:
                raise FileError(f"{place}: {_describe_error(error, KeyLimits)}") from None
            digest = sha256(key.encode()).digest()
            keys[digest] = ApiKey(name, sha256(digest).hexdigest(), given)
        if all(key.name == METRICS for key in keys.values()):
            raise FileError(f"{self._path}: contains no key")
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
        self.add(key, "requests_per_minute", 1)

    def add(self, key: ApiKey, name: str, count: int) -> None:
        """Count what a limit of a key is about: requests, or the tokens of prompts and answers."""
        period = int(time() // _PERIODS[name])
        for earlier in [one for one in self._used if one[1] == name and one[2] != period]:
            del self._used[earlier]
        self._used[key.namespace, name, period] += count


def _read(path: Path) -> str:
    return decode_utf8(read_bounded(path, FILE_BYTES_MAX), str(path))


def _describe_error(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors(include_url=False)[0]
    key, value = problem["loc"][0], shorten(problem["input"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is not one of {', '.join(model.model_fields)}"
    return f"{key} {problem['msg'].replace('Input should', 'must')}, not {value}"


class RequestLimits(BaseModel):
    """Limits of requests and connections; the file of `serve --config` has these keys.

    Attributes:
        queue: waiting answers; beyond these, 429 is returned.
        body_bytes: maximum size of a request body.
        max_tokens: maximum completion tokens of one answer; the context is a limit too.
        answers: maximum answers of one request: those that vote, choices, or prompts times choices.
        idle_s: time in seconds for which a connection without a request stays open.
        drain_s: time in seconds for running answers to finish when the server shuts down.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queue: int = Field(default=QUEUE, ge=0, le=1_000_000)
    body_bytes: int = Field(default=1 << 20, ge=1)
    max_tokens: int = Field(default=1 << 20, ge=1)
    answers: int = Field(default=24, ge=1, le=64)
    idle_s: int = Field(default=30, ge=1)
    drain_s: int = Field(default=30, ge=0)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read the limits from a TOML file; those that it lacks have their defaults.

        Raises:
            ThirteenError: the file is unreadable, too large, not TOML, or has an unknown key or a bad value.
        """
        try:
            return cls.model_validate(tomllib.loads(_read(path)))
        except ValidationError as error:
            raise RequestError(f"{path}: {_describe_error(error, cls)}") from None
        except (ValueError, RecursionError) as error:  # also of a number with too many digits
            raise RequestError(f"{path}: not TOML: {error}") from None


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Listen address and access rules.

    Attributes:
        host: local address or host name.
        port: TCP port; 0 picks a free one.
        keys: accepted API keys; None disables authentication.
        insecure: whether other machines may connect without a key; else that raises OptionError.
        origins: origins allowed by CORS, for example "https://example.org"; "*" allows all.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: ApiKeys | None = None
    insecure: bool = False
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (self.loopback or self.keys or self.insecure):
            remedy = "give {api_key_file}, or {insecure} to serve without keys"
            raise OptionError("host", f"accepts connections from other machines: {remedy}", self.host)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def allowed_hosts(self) -> tuple[str, ...] | None:
        """Accepted names in the Host header; None accepts any, because keys or nothing protect the server.

        The check prevents DNS rebinding: a foreign web page points its own name at this machine.
        """
        names = dict.fromkeys(("localhost", "127.0.0.1", "::1", self.host))
        return tuple(names) if self.loopback and not self.keys else None


def base_url(host: str, port: int) -> str:
    """URL of a server; an IPv6 address is put in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
