"""Order within rounds."""

from thirteen.bench.harness.schedule import alternating_order


def test_every_other_round_is_reversed():
    assert [list(alternating_order(3, number)) for number in range(3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert list(alternating_order(1, 1)) == [0]
