"""Work in rounds ends in time."""

from time import perf_counter, sleep

import pytest
from thirteen.bench.rounds import take_in_time


@pytest.mark.parametrize(("seconds", "taken"), [(-1, {1}), (60, {20}), (0.1, {*range(1, 10)})])
def test_items_are_taken_while_another_fits(seconds, taken):
    number = 0
    for _ in take_in_time(range(20), perf_counter() + seconds):
        number += 1
        sleep(0.01)
    assert number in taken
