"""Parts of an iteration of a benchmark, and the wall time of each."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from gguf import TokenType

from ...errors import ModelFileError
from ...runtime.engine.engine import Engine
from ...runtime.llama.model import Model
from ...runtime.request import Request

_SEED = 13


def random_prompt(model: Model, number: int, count: int) -> tuple[int, ...]:
    """Draw `count` tokens of ordinary text, never control tokens, with `number` as the seed.

    Raises:
        ModelFileError: the vocabulary has no ordinary tokens.
    """
    types = np.array(model.header.metadata["tokenizer.ggml.token_type"])  # (vocab,)
    ordinary = np.setdiff1d(np.flatnonzero(types == TokenType.NORMAL), list(model.control_tokens.values()))
    if not len(ordinary):
        raise ModelFileError(f"{model.header.path}: none of its {len(types)} tokens is ordinary text")
    drawn = np.random.default_rng((_SEED, number)).choice(ordinary, count)
    return tuple(drawn.tolist())


def time_prefill_and_decode(
    engine: Engine, prompt: tuple[int, ...], decode_tokens: int
) -> tuple[float, float]:
    """Seconds to the first token, and from there for `decode_tokens` more.

    The engine itself records the time of the first token: waking this thread for it would disturb the decode.
    """
    start = perf_counter()
    end = engine.submit(Request(prompt, max_tokens=1 + decode_tokens, ignore_end=True)).wait()
    total_s = perf_counter() - start
    assert end.usage.completion_tokens == 1 + decode_tokens, "the context has room for all of them"
    return end.timings.first_token_s, total_s - end.timings.first_token_s


def time_answers(engine: Engine, prompt: tuple[int, ...], answers: Sequence[int]) -> tuple[float, ...]:
    """Seconds from the submission of a prompt to the last token of an answer, for answers of several lengths.

    The longest is decoded, and the others are its beginning: up to their last token the work is the same. As
    above, the engine itself records the times.
    """
    end = engine.submit(Request(prompt, max_tokens=max(answers), ignore_end=True)).wait()
    assert len(end.token_s) == max(answers), "the context has room for all of them"
    return tuple(end.token_s[tokens - 1] for tokens in answers)
