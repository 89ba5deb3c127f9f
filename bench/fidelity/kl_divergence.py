"""How far a model's predictions lie from those of a reference, position by position and over all of them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...stats.bootstrap import ratio_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval

_TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Divergence:
    """A model beside its reference, over all positions.

    Attributes:
        kl_mean: mean of the Kullback-Leibler divergence KL(reference || model), in nats.
        kl_p99: its 99th percentile.
        kl_max: its largest value.
        same_top: at which part of the positions both have the same likeliest token.
        perplexity: of the text, by this model: exp of the mean surprise in nats.
        reference_perplexity: of the same text, by the reference.
        perplexity_ratio: model/reference, paired by position.
    """

    kl_mean: Interval
    kl_p99: float
    kl_max: float
    same_top: Interval
    perplexity: Interval
    reference_perplexity: Interval
    perplexity_ratio: Interval


class PositionDivergence(NamedTuple):
    """The same at one position; a surprise is -log p of the token that follows, in nats."""

    kl: float
    same_top: float
    surprise: float
    reference_surprise: float


def position_divergence(reference: FloatArray, model: FloatArray, following: int) -> PositionDivergence:
    """Compare two predictions of the token `following`, both as log-probabilities, (vocab,)."""
    return PositionDivergence(
        kl=max(0.0, float(np.sum(np.exp(reference) * (reference - model)))),  # rounding can take it below
        same_top=float(reference.argmax() == model.argmax()),
        surprise=-float(model[following]),
        reference_surprise=-float(reference[following]),
    )


def summarize_divergence(differences: FloatArray, passages: NDArray[np.int64]) -> Divergence:
    """The figures of all positions.

    Args:
        differences: each position's Difference, (positions, 4).
        passages: the passage that each is from, (positions,).
    """
    kl, same_top, surprise, reference_surprise = differences.T  # (positions,) each
    return Divergence(
        kl_mean=_mean(kl, passages),
        kl_p99=float(np.quantile(kl, _TAIL)),
        kl_max=float(kl.max()),
        same_top=_mean(same_top, passages),
        perplexity=_exp_mean(surprise, passages),
        reference_perplexity=_exp_mean(reference_surprise, passages),
        perplexity_ratio=_exp_mean(surprise - reference_surprise, passages),
    )


def _exp_mean(values: FloatArray, passages: NDArray[np.int64]) -> Interval:
    mean = _mean(values, passages)
    return Interval(*(float(np.exp(bound)) for bound in (mean.low, mean.estimate, mean.high)))


def _mean(values: FloatArray, passages: NDArray[np.int64]) -> Interval:
    counted = np.stack((values, np.ones_like(values)), axis=1)  # (positions, 2)
    return ratio_interval(sum_by_passage(counted, passages))
