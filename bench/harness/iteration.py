"""One turn of a model in a benchmark: the same work each time, and how long each part of it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from gguf import TokenType

from ...errors import ModelFileError
from ...runtime.engine.engine import Engine
from ...runtime.llama.model import Model
from ...runtime.request import Request
from .workload import Workload

_SEED = 13


@dataclass(frozen=True, slots=True)
class Iteration:
    """Wall times in seconds, as a caller of the engine has them.

    Attributes:
        prefill_s: from handing over a prompt in tokens to holding the token after it: queueing, the batches
            that compute the prompt, the choice of that token.
        decode_s: from there to holding the last token: each goes through the model, is sampled and handed
            over.
        first_token_s: from a question in text to the first text of its answer: chat template, tokenizer,
            prompt and one token.
        question_tokens: how many tokens that question was, template included.
    """

    prefill_s: float
    decode_s: float
    first_token_s: float
    question_tokens: int


def run_iteration(engine: Engine, number: int, settings: Workload) -> Iteration:
    """Have an idle engine read a prompt, write tokens, and answer a question with one token.

    The engine is idle again afterwards, with no keys and values left. Every turn number has a prompt and a
    question of its own, so that no cache of earlier ones can answer; they are the same for any engine of that
    vocabulary.
    """
    prompt = random_prompt(engine.model, number, settings.prompt_tokens)
    prefill_s, decode_s = time_prefill_and_decode(engine, prompt, settings.decode_tokens)
    first_token_s, question_tokens = _first_token(engine, f"What is {100 + number} times 13?")
    return Iteration(prefill_s, decode_s, first_token_s, question_tokens)


def random_prompt(model: Model, number: int, count: int) -> tuple[int, ...]:
    """Tokens of ordinary text in random order, never control tokens; the same number gives the same tokens.

    Raises:
        ModelFileError: the vocabulary has no ordinary tokens.
    """
    types = np.array(model.header.metadata["tokenizer.ggml.token_type"])  # (vocab,)
    ordinary = np.setdiff1d(np.flatnonzero(types == TokenType.NORMAL), list(model.control_tokens.values()))
    if not len(ordinary):
        raise ModelFileError(f"{model.header.path}: none of {len(types)} tokens is ordinary text")
    drawn = np.random.default_rng((_SEED, number)).choice(ordinary, count)
    return tuple(drawn.tolist())


def time_prefill_and_decode(
    engine: Engine, prompt: tuple[int, ...], decode_tokens: int
) -> tuple[float, float]:
    """Seconds to the first token, and from there over `decode_tokens` more.

    The whole is measured here, the first token where it is chosen: to be woken for it would disturb the rest.
    """
    began = perf_counter()
    end = engine.submit(Request(prompt, max_tokens=1 + decode_tokens, ignore_end=True)).wait()
    took = perf_counter() - began
    assert end.usage.completion_tokens == 1 + decode_tokens, "the context has room for all of them"
    return end.timings.first_token_s, took - end.timings.first_token_s


def time_batched_decode(engine: Engine, beginnings: Sequence[int], decode_tokens: int) -> float:
    """Seconds for several sequences at once, each from a token on: these, and so many more of each."""
    requests = [Request((token,), max_tokens=1 + decode_tokens, ignore_end=True) for token in beginnings]
    began = perf_counter()
    for handle in engine.submit_all(requests):
        handle.wait()
    return perf_counter() - began


def _first_token(engine: Engine, question: str) -> tuple[float, int]:
    """Seconds to the first text, and how many tokens the question was."""
    began = perf_counter()
    (piece,) = engine.stream(question, max_tokens=1)
    took = perf_counter() - began
    assert piece.answer is not None, "one token is the whole answer"
    return took, piece.answer.usage.prompt_tokens
