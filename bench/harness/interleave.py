"""One quantity of two models that took turns, and the ratio between them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...runtime.engine.engine import Engine
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import paired_ratio
from .schedule import alternating_order

SECONDS = "s"
ITERATIONS = 2  # of each model in a round
PERCENTILES = (5, 25, 75, 95)

LoadEngine = Callable[[], Engine]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PairedMeasurement:
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


def interleave(
    sides: Sequence[LoadEngine],
    works: Sequence[Callable[[Engine, int], T]],
    rounds: int,
    tick: Callable[[], None] = lambda: None,
) -> list[list[list[T]]]:
    """Have two models take turns at each work, A B B A in every round, with the same numbers.

    So each follows itself in one turn of two, where what it left in the caches makes it quicker. Of three in
    such an order the middle one never would: a base's equal there measured 1.5 % slower in prefill.

    They are loaded anew for each round: where a model comes to lie in memory makes it slower or quicker by a
    percent for as long as it is loaded, which no number of turns with the same ones would show.

    Args:
        sides: what loads each model.
        works: each done with an idle engine and a turn's number.
        rounds: how many.
        tick: called after each turn; the first of a model just loaded does not count.

    Returns:
        What each work gave, for each side, TURNS for every round.
    """
    taken: list[list[list[T]]] = [[[] for _ in sides] for _ in works]
    for number in range(rounds):
        with ExitStack() as loaded:
            engines = {
                side: loaded.enter_context(sides[side]()) for side in alternating_order(len(sides), number)
            }
            for engine in engines.values():
                works[0](engine, ITERATIONS * rounds)  # a number that no turn that counts has
                tick()
            for work, of in zip(works, taken, strict=True):
                for turn in range(ITERATIONS * number, ITERATIONS * (number + 1)):
                    for side in alternating_order(len(sides), turn):
                        of[side].append(work(engines[side], turn))
                        tick()
    return taken


def count_iterations(sides: int, works: int, rounds: int) -> int:
    """How many turns interleave() has taken."""
    return sides * rounds * (1 + ITERATIONS * works) if works else 0


def tokens_per_second(tokens: int, seconds: FloatArray) -> PairedMeasurement:
    """Tokens a second, from how long so many took in each turn, (2, rounds * TURNS)."""
    return _measure("tokens/s", tokens / seconds)


def duration(seconds: FloatArray) -> PairedMeasurement:
    """Seconds, from those of each turn, (2, rounds * TURNS)."""
    return _measure(SECONDS, seconds)


def _measure(unit: str, values: FloatArray) -> PairedMeasurement:
    best = values.reshape(2, -1, ITERATIONS)  # (2, rounds, TURNS)
    best = best.min(axis=2) if unit == SECONDS else best.max(axis=2)  # (2, rounds)
    base_median, adapted_median = np.median(values, axis=1).tolist()
    return PairedMeasurement(
        unit=unit,
        base=tuple(values[0].tolist()),
        adapted=tuple(values[1].tolist()),
        base_median=base_median,
        adapted_median=adapted_median,
        base_percentiles=tuple(np.percentile(values[0], PERCENTILES).tolist()),
        adapted_percentiles=tuple(np.percentile(values[1], PERCENTILES).tolist()),
        ratio=paired_ratio(*best),
    )
