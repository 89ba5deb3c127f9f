"""Order within rounds, and progress."""

from thirteen.bench.harness.schedule import ProgressCounter, alternating_order


def test_every_other_round_is_reversed():
    assert [list(alternating_order(3, number)) for number in range(3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    assert list(alternating_order(1, 1)) == [0]


def test_a_progress_counter_reports_steps_done_and_in_all():
    reported = []
    advance = ProgressCounter(lambda done, total: reported.append((done, total)), 5)
    advance()
    advance(3)
    advance()
    assert reported == [(1, 5), (4, 5), (5, 5)]
