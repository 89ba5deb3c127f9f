"""An API key: what it may use, and what it has used."""

from collections import Counter, deque
from dataclasses import dataclass
from math import ceil
from time import time
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..http_errors import HttpError

_MINUTE_S, _DAY_S = 60, 86_400


class KeyLimits(BaseModel):
    """What a key may use; None is no limit. The key file has these names, as `tokens_per_day=100000`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_day: int | None = Field(None, ge=1)
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


class KeyUsage:
    """What keys have used since the start: requests of the last minute, and tokens of this day in UTC."""

    def __init__(self) -> None:
        self._requests: dict[str, deque[float]] = {}
        self._day, self._tokens = 0, Counter[str]()

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


def _exhausted(message: str, seconds: float) -> HttpError:
    return HttpError(429, message, headers={"Retry-After": str(max(ceil(seconds), 1))})
