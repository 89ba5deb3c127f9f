"""Spearman's rank correlation of paired values."""

import numpy as np

from .bootstrap import RESAMPLES
from .interval import CONFIDENCE, FloatArray, Interval

_SEED = 13


def spearman(x: FloatArray, y: FloatArray) -> Interval:
    """Spearman's rho of pairs, (pairs,) each, with its percentile bootstrap interval at CONFIDENCE.

    Equal values share their mean rank. Rho is 0 where all values of one side are equal.
    """
    random = np.random.default_rng(_SEED)
    draws = random.integers(len(x), size=(RESAMPLES, len(x)))
    resampled = [_rho(x[draw], y[draw]) for draw in draws]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Interval(float(low), _rho(x, y), float(high))


def _rho(x: FloatArray, y: FloatArray) -> float:
    ranks = np.stack((_ranks(x), _ranks(y)))
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1)).prod()
    return float(ranks.prod(0).sum() / spread) if spread else 0.0


def _ranks(values: FloatArray) -> FloatArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], np.float64)
