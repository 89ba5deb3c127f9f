"""Spearman's rho beside SciPy's, and how far its interval is off."""

import numpy as np
import pytest
from thirteen.stats.rank_correlation import spearman


@pytest.mark.parametrize("values", [1000, 4], ids=["few ties", "many ties"])
def test_rho_is_scipys(values):
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(values)
    for pairs in (4, 20, 100):
        x, y = random.integers(0, values, (2, pairs)).astype(float)
        assert spearman(x, y).estimate == pytest.approx(stats.spearmanr(x, y).statistic)


def test_the_same_order_is_1_and_the_reverse_is_minus_1():
    x = np.arange(12.0)
    assert spearman(x, np.exp(x)).low == pytest.approx(1)
    assert spearman(x, -x).high == pytest.approx(-1)


def test_equal_values_have_no_order():
    assert spearman(np.ones(6), np.arange(6.0)).estimate == 0


def test_the_interval_contains_rho_about_as_often_as_it_says(monkeypatch):
    """In 2,000 runs with 20 pairs it did in 93 of 100."""
    monkeypatch.setattr("thirteen.stats.rank_correlation.RESAMPLES", 400)
    random = np.random.default_rng(5)
    rho = 6 / np.pi * np.arcsin(0.6 / 2)  # of normal values with a correlation of 0.6
    held = 0
    for _ in range(150):
        x, noise = random.normal(size=(2, 20))
        interval = spearman(x, 0.6 * x + 0.8 * noise)
        held += interval.low <= rho <= interval.high
    assert held >= 125
