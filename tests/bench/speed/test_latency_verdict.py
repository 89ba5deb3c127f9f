"""Ratios and their intervals in words."""

import pytest
from thirteen.bench.speed.latency import describe_difference, describe_noise, more_rounds
from thirteen.stats.interval import Interval


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        ((1.10, 1.12, 1.15), "answer: slower by 12.0 % (10.0 to 15.0 %)"),
        ((0.85, 0.88, 0.90), "answer: faster by 12.0 % (10.0 to 15.0 %)"),
        ((1.0, 1.01, 1.03), "answer: no significant difference (+0.0 to +3.0 %)"),
    ],
)
def test_a_significant_difference_is_faster_or_slower(ratio, text):
    assert describe_difference("answer", Interval(*ratio)) == text


def test_a_noisy_interval_names_its_width_and_the_rounds_that_narrow_it():
    text = describe_noise(Interval(0.94, 1.0, 1.06), 10)
    assert "the 99 % interval of the decode ratio is ±6.0 % wide, more than ±5 %" in text
    assert "about 5 more rounds" in text


@pytest.mark.parametrize(
    ("half_width", "rounds", "more"), [(0.04, 9, 0), (0.05, 9, 0), (0.1, 9, 27), (0.06, 10, 5)]
)
def test_an_interval_narrows_with_the_square_root_of_the_rounds(half_width, rounds, more):
    assert more_rounds(half_width, rounds) == more
