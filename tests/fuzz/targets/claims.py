"""Claims whose truth is known: no false one is marked right, no true one wrong."""

import random

from thirteen.runtime.arithmetic.equations import read_equations
from thirteen.tests.runtime.arithmetic.claims import draw_false, draw_plain, draw_true

from ..target import Target


def check(data: bytes) -> bool:
    draw = random.Random(data)
    false, true, plain = draw_false(draw), draw_true(draw), draw_plain(draw)
    steps = read_equations(false).steps
    assert not steps or not all(step.ok for step in steps), false
    for text in (true, plain):
        assert all(step.ok for step in read_equations(text).steps), text
    return bool(read_equations(true).steps)


TARGET = Target(check, max_bytes=32)
