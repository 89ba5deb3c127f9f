"""Intervals in words."""

import pytest
from thirteen.bench.harness.wording import describe_difference, describe_noise, more_rounds, too_noisy
from thirteen.stats.interval import Interval


@pytest.mark.parametrize(
    ("ratio", "more_is_better", "said"),
    [
        ((0.85, 0.88, 0.90), True, "decode: slower by 12.0 % (10.0 to 15.0 %)"),
        ((1.10, 1.12, 1.15), True, "decode: faster by 12.0 % (10.0 to 15.0 %)"),
        ((1.10, 1.12, 1.15), False, "decode: slower by 12.0 % (10.0 to 15.0 %)"),
        ((0.85, 0.88, 0.90), False, "decode: faster by 12.0 % (10.0 to 15.0 %)"),
        ((0.98, 1.01, 1.03), True, "decode: no difference that this run could show (-2.0 to +3.0 %)"),
        ((1.0, 1.01, 1.03), True, "decode: no difference that this run could show (+0.0 to +3.0 %)"),
    ],
)
def test_a_difference_is_said_as_what_it_means_to_a_user(ratio, more_is_better, said):
    assert describe_difference("decode", Interval(*ratio), more_is_better=more_is_better) == said


def test_an_interval_wider_than_5_percent_to_each_side_is_called_noisy():
    assert not too_noisy(Interval(0.96, 1.0, 1.04))
    assert too_noisy(Interval(0.94, 1.0, 1.06))
    assert too_noisy(Interval(0.50, 0.60, 0.70))  # it may well exclude 1 and still be too wide to quote
    said = describe_noise("decode", Interval(0.94, 1.0, 1.06), 10)
    assert "99 % interval is ±6.0 % wide, more than ±5 %" in said
    assert "about 5 rounds more" in said


@pytest.mark.parametrize(
    ("reach", "rounds", "more"), [(0.04, 9, 0), (0.05, 9, 0), (0.1, 9, 27), (0.06, 10, 5)]
)
def test_an_interval_narrows_with_the_square_root_of_the_rounds(reach, rounds, more):
    assert more_rounds(Interval(1 - reach, 1.0, 1 + reach), rounds) == more
