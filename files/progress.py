"""Callbacks that report how far a long operation is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # steps done, steps in all
Stage = Callable[[str], Progress]  # the progress of a named stage


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""
