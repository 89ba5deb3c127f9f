"""Claims whose truth is known: no false one is marked right, no true one wrong."""

import random

from thirteen.runtime.arithmetic.equations import check_steps
from thirteen.tests.runtime.arithmetic.claims import draw_false, draw_plain, draw_true

from ..target import Target


def check(data: bytes) -> bool:
    draw = random.Random(data)
    false, true, plain = draw_false(draw), draw_true(draw), draw_plain(draw)
    steps = check_steps(false)
    assert not steps or not all(step.ok for step in steps), false
    for text in (true, plain):
        assert all(step.ok for step in check_steps(text)), text
    return bool(check_steps(true))


TARGET = Target(check, max_bytes=32)
