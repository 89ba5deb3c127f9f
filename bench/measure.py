"""One quantity of two models that took turns, and the ratio between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .ratio import Array, Interval, paired_ratio
from .rounds import to_and_fro

SECONDS = "s"
TURNS = 2  # of each model in a round
PERCENTILES = (5, 25, 75, 95)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of both sides.

    Attributes:
        unit: "tokens/s", where more is better, or "s", where less is.
        base: every turn's value, in the order of time.
        adapted: likewise.
        base_median: over the turns.
        adapted_median: likewise.
        base_percentiles: the values that PERCENTILES of the turns do not exceed.
        adapted_percentiles: likewise.
        ratio: adapted/base, of each side's quickest turn in a round, paired by round. What disturbs a turn
            only ever makes it longer, so the quickest tells most of the model. It need not be the
            ratio of the medians.
    """

    unit: str
    base: tuple[float, ...]
    adapted: tuple[float, ...]
    base_median: float
    adapted_median: float
    base_percentiles: tuple[float, ...]
    adapted_percentiles: tuple[float, ...]
    ratio: Interval

    @property
    def more_is_better(self) -> bool:
        """Whether the larger value is the quicker one."""
        return self.unit != SECONDS


def interleave(base: Callable[[int], T], adapted: Callable[[int], T], rounds: int) -> tuple[list[T], list[T]]:
    """Call the two in turns, A B B A in every round; both see the same turn numbers in the same order.

    So each follows itself in one turn of two, where what it left in the caches makes it quicker. Of three in
    such an order the middle one never would: a base's equal there measured 1.5 % slower in prefill.

    Returns:
        What each gave, TURNS for every round.
    """
    taken: tuple[list[T], list[T]] = ([], [])
    for number in range(TURNS * rounds):
        for side in to_and_fro(2, number):
            taken[side].append((base, adapted)[side](number))
    return taken


def speed(tokens: int, seconds: Array) -> Measure:
    """Tokens a second, from how long so many took in each turn, (2, rounds * TURNS)."""
    return _measure("tokens/s", tokens / seconds)


def duration(seconds: Array) -> Measure:
    """Seconds, from those of each turn, (2, rounds * TURNS)."""
    return _measure(SECONDS, seconds)


def _measure(unit: str, values: Array) -> Measure:
    best = values.reshape(2, -1, TURNS)  # (2, rounds, TURNS)
    best = best.min(axis=2) if unit == SECONDS else best.max(axis=2)  # (2, rounds)
    base_median, adapted_median = np.median(values, axis=1).tolist()
    return Measure(
        unit=unit,
        base=tuple(values[0].tolist()),
        adapted=tuple(values[1].tolist()),
        base_median=base_median,
        adapted_median=adapted_median,
        base_percentiles=tuple(np.percentile(values[0], PERCENTILES).tolist()),
        adapted_percentiles=tuple(np.percentile(values[1], PERCENTILES).tolist()),
        ratio=paired_ratio(*best),
    )
