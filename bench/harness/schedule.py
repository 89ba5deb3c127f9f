"""The rounds of a measurement: in which order the sides take their turns, and how far it has come."""

from collections.abc import Sequence

from ...files.progress import Progress


class ProgressCounter:
    """Counts what is done, turn by turn, and tells of it."""

    def __init__(self, progress: Progress, total: int) -> None:
        """Begin with nothing done of `total`."""
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, done: int = 1) -> None:
        """So much more is done."""
        self._done += done
        self._progress(self._done, self._total)


def alternating_order(sides: int, number: int) -> Sequence[int]:
    """The order of a round's turns: reversed every other round, so that a drift meets all sides alike."""
    return range(sides)[:: -1 if number % 2 else 1]
