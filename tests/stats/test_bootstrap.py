"""The interval over passages, on made-up values whose true mean is known."""

import numpy as np
import pytest
from thirteen.stats import intervals
from thirteen.stats.intervals import bootstrap_interval, sum_by_passage


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def sums_of(random, passages, spread):
    """Passages of 5 to 50 positions around 1; those of one passage share most of their deviation."""
    lengths = random.integers(5, 50, passages)
    values = 1 + np.repeat(random.normal(0, spread, passages), lengths)
    values += random.normal(0, 0.1, len(values))
    counted = np.stack((values, np.ones_like(values)), axis=1)
    return sum_by_passage(counted, np.repeat(np.arange(passages), lengths))


def test_the_sums_are_those_of_each_passage_in_the_order_of_their_numbers():
    values = np.arange(10.0).reshape(5, 2)
    sums = sum_by_passage(values, np.array([7, 2, 7, 2, 9]))
    assert sums.tolist() == [[2 + 6, 3 + 7], [0 + 4, 1 + 5], [8, 9]]


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_interval_contains_the_true_mean_about_as_often_as_it_says(spread, monkeypatch):
    """It does in 93 of 100 runs, as 2,200 showed; 85 of 100 is four standard errors below that."""
    monkeypatch.setattr(intervals, "RESAMPLES", 2000)
    random = np.random.default_rng(7)
    found = [bootstrap_interval(sums_of(random, 30, spread), mean) for _ in range(200)]
    assert sum(each.low <= 1 <= each.high for each in found) >= 170


def test_the_estimate_is_the_figure_of_all_and_the_same_sums_give_the_same_interval():
    sums = sums_of(np.random.default_rng(9), 20, 0.5)
    each = bootstrap_interval(sums, mean)
    assert each.estimate == pytest.approx(sums[:, 0].sum() / sums[:, 1].sum())
    assert each.low < each.estimate < each.high
    assert each == bootstrap_interval(sums, mean)
