"""One iteration of a benchmark: the same work each time, with the wall time of each part."""

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
    """Wall times as a caller of the engine sees them.

    Attributes:
        prefill_s: time from the submission of a prompt in tokens to the first token: queueing, prefill and
            sampling.
        decode_s: time from the first token to the last: each is decoded, sampled and delivered.
        first_token_s: time from a question in text to the first text of its answer: chat template, tokenizer,
            prefill and one token.
        question_tokens: tokens of that question, chat template included.
    """

    prefill_s: float
    decode_s: float
    first_token_s: float
    question_tokens: int


def run_iteration(engine: Engine, number: int, workload: Workload) -> Iteration:
    """Time prefill and decode of a random prompt, then the first token of a question.

    Afterwards the engine is idle again, with an empty KV cache. Prompt and question depend on `number`, so no
    cache of an earlier iteration can answer them, and are the same for all engines of one vocabulary.
    """
    prompt = random_prompt(engine.model, number, workload.prompt_tokens)
    prefill_s, decode_s = time_prefill_and_decode(engine, prompt, workload.decode_tokens)
    first_token_s, question_tokens = _time_first_token(engine, f"What is {100 + number} times 13?")
    return Iteration(prefill_s, decode_s, first_token_s, question_tokens)


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


def time_batched_decode(engine: Engine, first_tokens: Sequence[int], decode_tokens: int) -> float:
    """Seconds to decode 1 + `decode_tokens` tokens of several sequences at once, with one-token prompts."""
    requests = [Request((token,), max_tokens=1 + decode_tokens, ignore_end=True) for token in first_tokens]
    start = perf_counter()
    for handle in engine.submit_all(requests):
        handle.wait()
    return perf_counter() - start


def _time_first_token(engine: Engine, question: str) -> tuple[float, int]:
    """Seconds to the first text of the answer, and the tokens of the question."""
    start = perf_counter()
    (piece,) = engine.stream(question, max_tokens=1)
    took_s = perf_counter() - start
    assert piece.answer is not None, "one token is the whole answer"
    return took_s, piece.answer.usage.prompt_tokens
