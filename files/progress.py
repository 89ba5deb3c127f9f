"""How a long operation runs: on so many threads, with callbacks that report how far it is."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]  # steps done, steps in all
Stage = Callable[[str], Progress]  # the progress of a named stage


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def part_of(progress: Progress, start: int, steps: int, total: int) -> Progress:
    """The progress of a part of an operation: it takes `steps` of `total` steps, after `start`."""
    return lambda done, of: progress(start + steps * done // of, total)


@dataclass(frozen=True, slots=True)
class Run:
    """How a long operation runs, and where it reports."""

    threads: int | None = None  # number of threads that compute; None for one per usable processor
    stage: Stage = lambda name: no_progress  # makes the progress callback of each named stage

    def when_needed(self, name: str) -> Progress:
        """The progress of a stage that begins with its first step, as it is often skipped."""
        started: list[Progress] = []

        def show(done: int, total: int) -> None:
            if not started:
                started.append(self.stage(name))
            started[0](done, total)

        return show


QUIET = Run()
