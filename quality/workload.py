"""Workload of a benchmark, and engines with a context for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RequestError
from ..runtime.engine.engine import Engine
from ..runtime.machine.threads import default_threads
from ..runtime.validation import check_integer

_BATCH = 512
_CONTEXT_MIN = 256  # tokens, enough for an iteration's question with its chat template


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of one iteration, and the threads and batch size for it.

    Attributes:
        prompt_tokens: tokens of the prefill.
        decode_tokens: tokens decoded after the first one.
        threads: threads that compute; by default one per physical core.
        batch: maximum tokens computed at once.
        longest: tokens of the longest text of another measurement with the same engine; 0 without one.
        adaptive_threads: whether the engine uses fewer threads while other programs use the processors.
    """

    prompt_tokens: int = 128
    decode_tokens: int = 64
    threads: int = field(default_factory=default_threads)
    batch: int = _BATCH
    longest: int = 0
    adaptive_threads: bool = False

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "decode_tokens"):  # the engine checks the others
            check_integer(f"bench: {name}", getattr(self, name), 1)

    @property
    def context(self) -> int:
        """Context in tokens that an engine needs."""
        return max(self.prompt_tokens + self.decode_tokens, self.longest, _CONTEXT_MIN)


def load_engine(
    model: Path,
    adapter: Path | None,
    workload: Workload,
    *,
    slots: int = 1,
    make: Callable[..., Engine] = Engine,
) -> Engine:
    """Load an engine for a workload, without a prefix cache.

    Args:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file, applied at run time; None for none.
        workload: the work of an iteration.
        slots: iterations that can run at once.
        make: class of the engine, called as Engine is.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; the adapter does not fit
            the model.
        RequestError: the workload is longer than the context that the model was trained for.
    """
    engine = make(
        model,
        adapter=adapter,
        context=workload.context,
        slots=slots,
        threads=workload.threads,
        adaptive_threads=workload.adaptive_threads,
        batch=workload.batch,
        prefix_bytes=0,
    )
    prompt_tokens, decode_tokens, longest = workload.prompt_tokens, workload.decode_tokens, workload.longest
    for what, tokens in {
        f"{prompt_tokens} prompt and {decode_tokens} decode tokens do": prompt_tokens + decode_tokens,
        f"a text of {longest} tokens does": longest,
    }.items():
        if tokens > engine.context:
            engine.close()
            raise RequestError(f"{model}: {what} not fit the {engine.context} tokens of its context")
    return engine
