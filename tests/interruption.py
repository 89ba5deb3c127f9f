"""Interruption of a run at a chosen place."""

from collections.abc import Callable


class Interrupted(Exception):
    """Ends a run in the middle."""


def stop_at(count: int | None) -> Callable[..., None]:
    """A progress, with or without a label in front, that ends the run where so many are done."""

    def progress(*at: object) -> None:
        if at[-2] == count:
            raise Interrupted

    return progress
