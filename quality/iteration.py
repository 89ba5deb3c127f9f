"""Parts of an iteration of a benchmark, and the time of each."""

from collections.abc import Sequence

import numpy as np
from gguf import TokenType

from ..errors import FileError
from ..runtime.engine.engine import Engine
from ..runtime.llama.model import Model
from ..runtime.request import Request

_SEED = 13


def random_prompt(model: Model, number: int, count: int) -> tuple[int, ...]:
    """Draw `count` tokens of ordinary text, never control tokens, with `number` as the seed.

    Raises:
        FileError: the vocabulary has no ordinary tokens.
    """
    types = np.array(model.header.metadata["tokenizer.ggml.token_type"])  # (vocab,)
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
    end = engine.submit(Request(prompt, max_tokens=max(answers), ignore_end=True)).wait()
    assert len(end.token_s) == max(answers), "the context has room for all of them"
    return tuple(end.token_s[tokens - 1] for tokens in answers)
