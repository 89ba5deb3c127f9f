"""Speed against text length: prompts of several lengths, and tokens decoded after each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import RequestError
from ...runtime.engine.engine import Engine
from ...runtime.validation import check_integer
from ..harness.interleave import EngineLoader, PairedMeasurement, duration, interleave, throughput
from ..harness.iteration import random_prompt, time_prefill_and_decode

LENGTH_ROUNDS = 8
DECODE_TOKENS = 16  # after each prompt: few, so that the depth stays close to the prompt's length
LENGTHS_MAX = 16


@dataclass(frozen=True, slots=True)
class LengthSpeeds:
    """Speeds of base and adapted model at one length.

    Attributes:
        tokens: length of the prompt.
        prefill: prompt tokens per second.
        first_token: seconds from submitting the prompt's tokens to the first token.
        decode: tokens per second after that, at a depth of about `tokens`.
    """

    tokens: int
    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Sort the lengths and remove duplicates.

    Raises:
        RequestError: a length is not a positive integer, or there are more than LENGTHS_MAX.
    """
    if len(lengths) > LENGTHS_MAX:
        raise RequestError(f"bench: lengths: {len(lengths)} of them; at most {LENGTHS_MAX} are measured")
    for tokens in lengths:
        check_integer("bench: lengths", tokens, 1)
    return tuple(sorted(set(lengths)))


def longest_text(lengths: Sequence[int]) -> int:
    """Tokens of the longest text that measure_lengths() computes; 0 without lengths."""
    return max(lengths) + 1 + DECODE_TOKENS if lengths else 0


def measure_lengths(
    loaders: Sequence[EngineLoader], lengths: Sequence[int], advance: Callable[[], None]
) -> tuple[LengthSpeeds, ...]:
    """Measure base and adapted model at each length; see interleave()."""
    tasks = [partial(_run_iteration, tokens) for tokens in lengths]
    results = interleave(loaders, tasks, LENGTH_ROUNDS, advance) if tasks else []
    return tuple(_speeds(tokens, by_model) for tokens, by_model in zip(lengths, results, strict=True))


def _run_iteration(tokens: int, engine: Engine, number: int) -> tuple[float, float]:
    return time_prefill_and_decode(engine, random_prompt(engine.model, number, tokens), DECODE_TOKENS)


def _speeds(tokens: int, results: Sequence[Sequence[tuple[float, float]]]) -> LengthSpeeds:
    prefill_s, decode_s = np.moveaxis(np.array(results), 2, 0)  # (2, iterations) each
    return LengthSpeeds(
        tokens, throughput(tokens, prefill_s), duration(prefill_s), throughput(DECODE_TOKENS, decode_s)
    )
