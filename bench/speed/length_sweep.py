"""How speed falls as texts grow: prompts of several lengths, and tokens decoded after each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import RequestError
from ...runtime.engine.engine import Engine
from ...runtime.request import check_integer
from ..harness.interleave import LoadEngine, PairedMeasurement, duration, interleave, tokens_per_second
from ..harness.iteration import random_prompt, time_prefill_and_decode

ROUNDS = 8
DECODE_TOKENS = 16  # after each prompt: so few that the depth stays about the prompt's length
LENGTHS_MAX = 16


@dataclass(frozen=True, slots=True)
class LengthSpeeds:
    """Both sides at one length.

    Attributes:
        tokens: of the prompt.
        prefill: prompt tokens a second.
        first_token: seconds from handing over the prompt's tokens to holding the one after it.
        decode: tokens a second after that, so at a depth of about `tokens`.
    """

    tokens: int
    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """The lengths in order.

    Raises:
        RequestError: one is no length of a prompt, or there are too many.
    """
    if len(lengths) > LENGTHS_MAX:
        raise RequestError(f"bench: lengths: {len(lengths)} of them; at most {LENGTHS_MAX} are measured")
    for tokens in lengths:
        check_integer("bench: lengths", tokens, 1)
    return tuple(sorted(set(lengths)))


def measure_lengths(
    base: LoadEngine, adapted: LoadEngine, lengths: Sequence[int], tick: Callable[[], None]
) -> tuple[LengthSpeeds, ...]:
    """Have two models take turns at each length; see interleave()."""
    works = [partial(_turn, tokens) for tokens in lengths]
    taken = interleave((base, adapted), works, ROUNDS, tick) if works else []
    return tuple(_length(tokens, turns) for tokens, turns in zip(lengths, taken, strict=True))


def _turn(tokens: int, engine: Engine, number: int) -> tuple[float, float]:
    return time_prefill_and_decode(engine, random_prompt(engine.model, number, tokens), DECODE_TOKENS)


def _length(tokens: int, turns: Sequence[Sequence[tuple[float, float]]]) -> LengthSpeeds:
    read_s, wrote_s = np.moveaxis(np.array(turns), 2, 0)  # (2, ROUNDS * TURNS) each
    return LengthSpeeds(
        tokens, tokens_per_second(tokens, read_s), duration(read_s), tokens_per_second(DECODE_TOKENS, wrote_s)
    )
