"""An HTTP request while it is answered: what its endpoint, the log and the metrics know of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.requests import Request
from starlette.types import Scope

from ..runtime.answer import SequenceEnd
from ..runtime.engine.engine import Engine
from ..runtime.engine.handle import Handle
from .access.key_limits import ApiKey
from .http_errors import CLIENT_CLOSED_REQUEST, HttpError

_SCOPE_KEY = "thirteen.call"
_ENDING_S = 10.0


@dataclass(eq=False)
class Call:
    """An HTTP request while it is answered.

    Attributes:
        engine: the engine that answers it, also if another one replaces that meanwhile.
        key: its API key; None where the server has no keys.
        model: name of the model that it asks.
        handles: of its answers.
        embedded_tokens: tokens of the texts that it embeds.
        ignored: names of the fields of its body that have no effect.
        status: status of the response; 0 before that begins.
        complete: whether the whole response has been sent.
        error: what ended a response that had begun.
    """

    engine: Engine
    key: ApiKey | None = None
    model: str = ""
    handles: Sequence[Handle] = ()
    embedded_tokens: int = 0
    ignored: list[str] = field(default_factory=list)
    status: int = 0
    complete: bool = False
    error: HttpError | None = None

    @classmethod
    def of(cls, request: Request | Scope) -> "Call":
        """The call of a request."""
        call: Call = (request.scope if isinstance(request, Request) else request)[_SCOPE_KEY]
        return call

    def add_to(self, scope: Scope) -> None:
        """Make this the call of a request with this scope."""
        scope[_SCOPE_KEY] = self

    @property
    def key_name(self) -> str:
        """How the log and the metrics name the key."""
        return self.key.name if self.key else ""

    @property
    def namespace(self) -> str:
        """Namespace of the prefix cache: each key has its own, and clients without keys share one."""
        return self.key.namespace if self.key else ""

    @property
    def outcome(self) -> int:
        """Status for the log and the metrics, which also tells how a stream ended."""
        if self.error:
            return self.error.status
        return self.status if self.complete else CLIENT_CLOSED_REQUEST

    async def ends(self) -> list[SequenceEnd]:
        """The ends of the answers; one that was cut off with its response ends within a step."""
        found = [
            _end(handle) if handle.done else await to_thread.run_sync(_end, handle) for handle in self.handles
        ]
        return [end for end in found if end]


def _end(handle: Handle) -> SequenceEnd | None:
    with suppress(Exception):  # it has failed
        return handle.wait(_ENDING_S)
    return None
