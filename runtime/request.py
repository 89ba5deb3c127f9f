"""A request in tokens, ready for the engine."""

from dataclasses import dataclass, field
from operator import index

from ..errors import RequestError
from .options import Options

BASE = "base"  # adapter name of a request for the model without an adapter
DEFAULT_ADAPTER = "adapter"  # name of the adapter that an engine is given without a name
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt in tokens, and how to continue it. Engine.submit() checks it against the model.

    Attributes:
        tokens: the prompt, at least one token; any sequence of integers becomes a tuple.
        options: how to continue it.
        question: what was asked, with all that was said before; it grounds the numbers of the answer.
        examples: the prompt with worked examples before the question, for the first answers of a vote; none
            if empty.
    """

    tokens: tuple[int, ...]
    options: Options = field(default_factory=Options)
    question: str = ""
    examples: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "tokens", tuple(map(index, self.tokens)))
        except TypeError:
            raise RequestError("the tokens of a prompt must be a sequence of integers") from None
