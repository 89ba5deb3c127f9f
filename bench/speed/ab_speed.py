"""The speeds of two models that take turns: prompt, first token, and the tokens after it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..harness.interleave import Load, Measure, duration, interleave, speed
from ..harness.iteration import Turn, take_turn
from ..harness.workload import Settings
from ..stats.paired_ratio import Array


@dataclass(frozen=True, slots=True)
class Speeds:
    """Both sides, in turns.

    Attributes:
        prefill: prompt tokens a second up to the first token; see Turn.prefill_s.
        first_token: seconds from a question in text to the first text; see Turn.first_token_s.
        decode: tokens a second after the first; see Turn.decode_s.
        question_tokens: what the question of the first turn came to, for base and adapted.
    """

    prefill: Measure
    first_token: Measure
    decode: Measure
    question_tokens: tuple[int, int]

    @property
    def named(self) -> Iterator[tuple[str, Measure]]:
        """The measures with their names in words, that of most interest first."""
        yield "decode", self.decode
        yield "first token", self.first_token
        yield "prefill", self.prefill


def compare(base: Load, adapted: Load, settings: Settings, rounds: int, tick: Callable[[], None]) -> Speeds:
    """Have two models go through rounds; see interleave()."""
    (turns,) = interleave((base, adapted), (partial(take_turn, settings=settings),), rounds, tick)
    return Speeds(
        prefill=speed(settings.prompt_tokens, _seconds(turns, "prefill_s")),
        first_token=duration(_seconds(turns, "first_token_s")),
        decode=speed(settings.decode_tokens, _seconds(turns, "decode_s")),
        question_tokens=(turns[0][0].question_tokens, turns[1][0].question_tokens),
    )


def _seconds(turns: Sequence[Sequence[Turn]], name: str) -> Array:
    return np.array([[getattr(turn, name) for turn in side] for side in turns])  # (2, rounds * TURNS)
