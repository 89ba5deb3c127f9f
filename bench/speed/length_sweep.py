"""How speed falls as texts grow: prompts of several lengths, and tokens decoded after each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import RequestError
from ...runtime.engine.engine import Engine
from ...runtime.request import check_whole
from ..harness.interleave import Load, Measure, duration, interleave, speed
from ..harness.iteration import random_prompt, read_and_write

ROUNDS = 8
DECODE_TOKENS = 16  # after each prompt: so few that the depth stays about the prompt's length
LENGTHS_MAX = 16


@dataclass(frozen=True, slots=True)
class Length:
    """Both sides at one length.

    Attributes:
        tokens: of the prompt.
        prefill: prompt tokens a second.
        first_token: seconds from handing over the prompt's tokens to holding the one after it.
        decode: tokens a second after that, so at a depth of about `tokens`.
    """

    tokens: int
    prefill: Measure
    first_token: Measure
    decode: Measure


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """The lengths in order.

    Raises:
        RequestError: one is no length of a prompt, or there are too many.
    """
    if len(lengths) > LENGTHS_MAX:
        raise RequestError(f"bench: lengths: {len(lengths)} of them; at most {LENGTHS_MAX} are measured")
    for tokens in lengths:
        check_whole("bench: lengths", tokens, 1)
    return tuple(sorted(set(lengths)))


def measure(
    base: Load, adapted: Load, lengths: Sequence[int], tick: Callable[[], None]
) -> tuple[Length, ...]:
    """Have two models take turns at each length; see interleave()."""
    works = [partial(_turn, tokens) for tokens in lengths]
    taken = interleave((base, adapted), works, ROUNDS, tick) if works else []
    return tuple(_length(tokens, turns) for tokens, turns in zip(lengths, taken, strict=True))


def _turn(tokens: int, engine: Engine, number: int) -> tuple[float, float]:
    return read_and_write(engine, random_prompt(engine.model, number, tokens), DECODE_TOKENS)


def _length(tokens: int, turns: Sequence[Sequence[tuple[float, float]]]) -> Length:
    read_s, wrote_s = np.moveaxis(np.array(turns), 2, 0)  # (2, ROUNDS * TURNS) each
    return Length(tokens, speed(tokens, read_s), duration(read_s), speed(DECODE_TOKENS, wrote_s))
