"""Workload of a benchmark: engines with a context for it, and the times of its parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from gguf import TokenType

from ..errors import RequestError
from ..runtime.engine.engine import Engine
from ..runtime.llama.model import Model
from ..runtime.machine import default_threads
from ..runtime.options import Options, Request
from .environment import ModelSource

_BATCH = 512
_CONTEXT_MIN = 256  # tokens, enough for an iteration's question with its chat template
_SEED = 13


@dataclass(frozen=True, slots=True)
class Workload:
    """The work of an iteration: a prompt, then an answer of one token and `decode_tokens` more."""

    prompt_tokens: int = 128
    decode_tokens: int = 64
    threads: int = field(default_factory=default_threads)
    adaptive_threads: bool = False

    @property
    def context(self) -> int:
        """Context in tokens that an engine needs."""
        return max(self.prompt_tokens + self.decode_tokens, _CONTEXT_MIN)


def load_engine(source: ModelSource, work: Workload, make: Callable[..., Engine] = Engine) -> Engine:
    """Load an engine for a workload, without a prefix cache, by calling `make` as Engine is called.

    Raises:
        FileError: a file cannot be run by this build, or the adapter does not fit the model.
        RequestError: the workload is longer than the context that the model was trained for.
    """
    engine = make(
        source.model,
        adapter=source.adapter,
        context=work.context,
        slots=1,
        threads=work.threads,
        adaptive_threads=work.adaptive_threads,
        batch=_BATCH,
        prefix_bytes=0,
    )
    if work.prompt_tokens + work.decode_tokens > engine.context:
        engine.close()
        raise RequestError(
            f"{source.model}: {work.prompt_tokens} prompt and {work.decode_tokens} decode tokens do not fit "
            f"the {engine.context} tokens of its context"
        )
    return engine


def random_prompt(model: Model, number: int, count: int) -> tuple[int, ...]:
    """Draw `count` tokens of ordinary text, never control tokens, with `number` as the seed."""
    normal = [TokenType.NORMAL] * model.vocabulary_size
    types = np.array(model.header.metadata.get("tokenizer.ggml.token_type", normal))  # (vocab,)
    ordinary = np.setdiff1d(np.flatnonzero(types == TokenType.NORMAL), list(model.control_tokens.values()))
    drawn = np.random.default_rng((_SEED, number)).choice(ordinary, count)
    return tuple(drawn.tolist())


def time_answers(engine: Engine, prompt: tuple[int, ...], answers: Sequence[int]) -> tuple[float, ...]:
    """Seconds from the submission of a prompt to the last token of an answer, for answers of several lengths.

    The engine records the times, because waking this thread for each token would disturb the decode.
    """
    end = engine.submit(Request(prompt, Options(max_tokens=max(answers), ignore_end=True))).wait()
    assert len(end.token_s) == max(answers), "the context has room for all of them"
    return tuple(end.token_s[tokens - 1] for tokens in answers)
