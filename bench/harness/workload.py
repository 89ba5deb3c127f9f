"""What a measurement is of: the room that a model is given and the work that it is put to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import RequestError
from ...runtime.engine.engine import Engine
from ...runtime.request import check_integer

_BATCH = 512
_QUESTION_ROOM = 256  # tokens that the question of a turn has at least, template included


@dataclass(frozen=True, slots=True)
class Workload:
    """How much work, and with what.

    Attributes:
        prompt_tokens: tokens read in the prefill of each turn.
        decode_tokens: tokens written after the first one.
        threads: that compute.
        batch: the most tokens computed at once.
        longest: tokens that have to fit beside that, of another measurement with the same engine.
    """

    prompt_tokens: int
    decode_tokens: int
    threads: int
    batch: int = _BATCH
    longest: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "decode_tokens"):  # the others are checked where the engine is made
            check_integer(f"bench: {name}", getattr(self, name), 1)

    @property
    def context(self) -> int:
        """Tokens that a turn needs room for."""
        return max(self.prompt_tokens + self.decode_tokens, self.longest, _QUESTION_ROOM)


def load_engine(
    model: Path,
    adapter: Path | None,
    settings: Workload,
    *,
    slots: int = 1,
    make: Callable[..., Engine] = Engine,
) -> Engine:
    """An engine with room for a turn, or for so many at once.

    Args:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file that it gets at run time.
        settings: the work.
        slots: turns at once.
        make: the kind of engine, called as Engine is.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter is not one for this model.
        RequestError: a turn is longer than what the model was trained for.
    """
    engine = make(
        model,
        adapter=adapter,
        context=settings.context,
        slots=slots,
        threads=settings.threads,
        batch=settings.batch,
        prefix_bytes=0,
    )
    works = {
        f"{settings.prompt_tokens} prompt and {settings.decode_tokens} decode tokens do": (
            settings.prompt_tokens + settings.decode_tokens
        ),
        f"a text of {settings.longest} tokens does": settings.longest,
    }
    for work, needed in works.items():
        if needed > engine.context:
            engine.close()
            raise RequestError(f"{model}: {work} not fit the {engine.context} that it was trained for")
    return engine
