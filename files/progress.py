"""Callbacks that report how far a long operation is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # steps done, steps in all
Stage = Callable[[str], Progress]  # the progress of a named stage


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def part_of(progress: Progress, start: int, steps: int, total: int) -> Progress:
    """The progress of a part of an operation: it takes `steps` of `total` steps, after `start`."""
    return lambda done, of: progress(start + steps * done // of, total)


def when_needed(stage: Stage, name: str) -> Progress:
    """The progress of a stage that begins with its first step, as it is often skipped."""
    started: list[Progress] = []

    def show(done: int, total: int) -> None:
        if not started:
            started.append(stage(name))
        started[0](done, total)

    return show
