"""The order of the sides, and the count of what is done."""

from thirteen.bench.harness.schedule import ProgressCounter, alternating_order


def test_every_other_round_goes_back():
    assert [list(alternating_order(3, number)) for number in range(3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert list(alternating_order(1, 1)) == [0]


def test_a_ticker_tells_what_is_done_of_all():
    told = []
    tick = ProgressCounter(lambda done, total: told.append((done, total)), 5)
    tick()
    tick(3)
    tick()
    assert told == [(1, 5), (4, 5), (5, 5)]
