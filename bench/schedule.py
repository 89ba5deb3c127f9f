"""Order of the participants in the rounds of a benchmark, its progress, and its end in time."""

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import TypeVar

from ..files.progress import Progress

T = TypeVar("T")


class ProgressCounter:
    """Counts completed steps and reports each of them to a progress callback."""

    def __init__(self, progress: Progress, total: int) -> None:
        """Start at 0 of `total` steps."""
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, steps: int = 1) -> None:
        """Count more completed steps."""
        self._done += steps
        self._progress(self._done, self._total)


def alternating_order(participants: int, number: int) -> Sequence[int]:
    """The order within a round: reversed in every other one, so that drift of the machine meets all alike."""
    return range(participants)[:: -1 if number % 2 else 1]


def take_in_time(items: Iterable[T], until: float, least: int = 1) -> Iterator[T]:
    """Yield items as long as one more would be done by `until`, if it takes as long as the slowest so far.

    Args:
        items: what is worked on between two of them.
        until: a time of perf_counter().
        least: items that are yielded in any case.
    """
    slowest_s = 0.0
    for number, item in enumerate(items):
        start = perf_counter()
        if number >= least and start + slowest_s > until:
            return
        yield item
        slowest_s = max(slowest_s, perf_counter() - start)
