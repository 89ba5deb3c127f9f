"""The interval of a ratio, on made-up measures whose true ratio is known."""

import numpy as np
import pytest
from thirteen.bench.ratio import paired_ratio


def rounds(random, ratio, spikes, count=12):
    """Turn times with a drift that both sides share, 3 % of noise, and now and then a turn twice as long."""
    drift = np.cumsum(random.normal(0, 0.2, count))[:, None]
    noise = random.normal(0, 0.03, (2, count, 2)) + np.log(2) * (random.random((2, count, 2)) < spikes)
    base, adapted = np.exp(drift + noise)
    return base, adapted * ratio


@pytest.mark.parametrize("ratio", [1.0, 0.8, 1.3])
@pytest.mark.parametrize("spikes", [0.0, 0.05])
def test_the_interval_contains_the_true_ratio_in_at_least_90_of_100_runs(ratio, spikes):
    random = np.random.default_rng(7)
    intervals = [paired_ratio(*rounds(random, ratio, spikes)) for _ in range(100)]
    assert sum(interval.low <= ratio <= interval.high for interval in intervals) >= 90


@pytest.mark.parametrize(("spikes", "found"), [(0.0, 99), (0.05, 90)])
def test_a_slowdown_of_10_percent_is_found(spikes, found):
    random = np.random.default_rng(8)
    intervals = [paired_ratio(*rounds(random, 1.1, spikes)) for _ in range(100)]
    assert sum(interval.excludes_one for interval in intervals) >= found


def test_a_drift_that_both_sides_share_leaves_no_trace():
    drift = np.geomspace(1, 20, 12)[:, None] * np.ones((1, 2))
    interval = paired_ratio(drift, drift * 1.25)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((1.25, 1.25, 1.25))
    assert interval.half_width == pytest.approx(0, abs=1e-9)


def test_the_same_measures_give_the_same_interval_and_swapped_sides_its_inverse():
    random = np.random.default_rng(9)
    base, adapted = rounds(random, 1.1, 0.0, count=11)  # odd, so that the median is one of the rounds
    one, swapped = paired_ratio(base, adapted), paired_ratio(adapted, base)
    assert one == paired_ratio(base, adapted)
    assert swapped.estimate == pytest.approx(1 / one.estimate)
    assert (swapped.low, swapped.high) == pytest.approx((1 / one.high, 1 / one.low), rel=1e-3)
