"""Work in rounds ends in time."""

from time import perf_counter, sleep

import pytest
from thirteen.bench.schedule import take_in_time


@pytest.mark.parametrize(
    ("seconds", "least", "taken"), [(-1, 1, {1}), (-1, 3, {3}), (60, 1, {20}), (0.1, 1, {*range(1, 10)})]
)
def test_items_are_taken_while_another_fits(seconds, least, taken):
    number = 0
    for _ in take_in_time(range(20), perf_counter() + seconds, least):
        number += 1
        sleep(0.01)
    assert number in taken
