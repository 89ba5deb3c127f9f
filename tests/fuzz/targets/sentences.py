"""The calculator on sentences around sums: it completes and marks only what has one reading."""

from collections.abc import Sequence
from typing import Any

from thirteen.tests.runtime.arithmetic.sentences import draw_sentence

from ..target import Target


def check(data: bytes) -> bool:
    choices = iter(data)

    def choose(options: Sequence[Any]) -> Any:
        return options[next(choices, 0) % len(options)]

    return draw_sentence(choose).check()


TARGET = Target(check, max_bytes=32)
