"""Workload of a benchmark: engines with a context for it, and the times of its parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import TokenType

from ..errors import FileError, RequestError
from ..runtime.engine.engine import Engine
from ..runtime.llama.model import Model
from ..runtime.machine import default_threads
from ..runtime.options import Options, Request, check_integer

_BATCH = 512
_CONTEXT_MIN = 256  # tokens, enough for an iteration's question with its chat template
_SEED = 13


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


def random_prompt(model: Model, number: int, count: int) -> tuple[int, ...]:
    """Draw `count` tokens of ordinary text, never control tokens, with `number` as the seed.

    Raises:
        FileError: the vocabulary has no ordinary tokens.
    """
    normal = [TokenType.NORMAL] * model.vocabulary_size
    types = np.array(model.header.metadata.get("tokenizer.ggml.token_type", normal))  # (vocab,)
    ordinary = np.setdiff1d(np.flatnonzero(types == TokenType.NORMAL), list(model.control_tokens.values()))
    if not len(ordinary):
        raise FileError(f"{model.header.path}: none of its {len(types)} tokens is ordinary text")
    drawn = np.random.default_rng((_SEED, number)).choice(ordinary, count)
    return tuple(drawn.tolist())


def time_prefill_and_decode(
    engine: Engine, prompt: tuple[int, ...], decode_tokens: int
) -> tuple[float, float]:
    """Seconds to the first token, and from there for `decode_tokens` more."""
    first_s, last_s = time_answers(engine, prompt, (1, 1 + decode_tokens))
    return first_s, last_s - first_s


def time_answers(engine: Engine, prompt: tuple[int, ...], answers: Sequence[int]) -> tuple[float, ...]:
    """Seconds from the submission of a prompt to the last token of an answer, for answers of several lengths.

    The longest is decoded, and the others are its beginning: up to their last token the work is the same. The
    engine itself records the times: waking this thread for each token would disturb the decode.
    """
    end = engine.submit(Request(prompt, Options(max_tokens=max(answers), ignore_end=True))).wait()
    assert len(end.token_s) == max(answers), "the context has room for all of them"
    return tuple(end.token_s[tokens - 1] for tokens in answers)
