"""The interval of a ratio, on made-up measures whose true ratio is known."""

import numpy as np
import pytest
from thirteen.stats.intervals import ROUNDS_MIN, means_outside, paired_ratio, ratio_level

RUNS = 1000


def quiet(random, shape):
    """3 % of noise, to either side."""
    return random.normal(0, 0.03, shape)


def skewed(random, shape):
    """Noise as of a shared machine: nothing is quicker than undisturbed, a few are much slower."""
    return random.exponential(0.03, shape) + np.log(2) * (random.random(shape) < 0.05)


def lasting(random, shape):
    """Disturbances of several rounds, which make a side slower by up to a fifth, each by something else."""
    starts = random.random(shape[-1]) < 0.1  # (rounds,)
    return random.normal(0, 0.01, shape) + 0.2 * (starts | np.roll(starts, 1)) * random.random(shape)


NOISES = (quiet, skewed, lasting)


def intervals(random, ratio, noise, rounds):
    """Those of many runs, whose machine drifts by a fifth from round to round."""
    for _ in range(RUNS):
        drift = np.cumsum(random.normal(0, 0.2, rounds))
        base, adapted = np.exp(drift + noise(random, (2, rounds)))
        yield paired_ratio(base, adapted * ratio)


@pytest.mark.parametrize("rounds", [ROUNDS_MIN, 20])
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
def test_the_interval_contains_the_true_ratio_in_98_of_100_runs(noise, rounds):
    """The 95 % interval by bootstrap of the median of so few did in 88 to 95."""
    found = intervals(np.random.default_rng(7), 0.8, noise, rounds)
    assert sum(interval.low <= 0.8 <= interval.high for interval in found) >= 0.98 * RUNS


@pytest.mark.parametrize(("noise", "rounds"), [(quiet, 20), (skewed, 40), (lasting, 20)])
def test_a_slowdown_of_5_percent_is_found_given_the_rounds(noise, rounds):
    found = intervals(np.random.default_rng(8), 1.05, noise, rounds)
    assert sum(interval.low > 1 for interval in found) >= 0.9 * RUNS


@pytest.mark.parametrize(
    ("rounds", "outside"), [(8, 0), (9, 1), (10, 3), (12, 7), (15, 15), (20, 37), (25, 68)]
)
def test_the_bounds_are_at_the_published_critical_values(rounds, outside):
    """Of the signed-rank test, two-sided at 1 %."""
    assert means_outside(rounds) == outside


@pytest.mark.parametrize("rounds", [2, 5, 8])
def test_few_rounds_are_labelled_with_how_often_they_are_right(rounds):
    found = intervals(np.random.default_rng(5), 1.0, quiet, rounds)
    share = sum(interval.low <= 1 <= interval.high for interval in found) / RUNS
    assert share == pytest.approx(float(ratio_level(rounds).removesuffix(" %")) / 100, abs=0.04)


def test_a_drift_that_both_sides_share_leaves_no_trace():
    drift = np.geomspace(1, 20, 12)
    interval = paired_ratio(drift, drift * 1.25)
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((1.25, 1.25, 1.25))
    assert interval.half_width == pytest.approx(0, abs=1e-9)
