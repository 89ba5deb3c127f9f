"""Order of the participants in the rounds of a benchmark, and its progress."""

from collections.abc import Sequence

from ..files.progress import Progress


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
