"""KL divergence and perplexity of a model against a reference, by position and over all positions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...stats.bootstrap import ratio_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval

_TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Divergence:
    """A model against its reference, over all positions.

    Attributes:
        kl_mean: mean of the Kullback-Leibler divergence KL(reference || model), in nats.
        kl_p99: its 99th percentile.
        kl_max: its maximum.
        same_top: share of the positions where both models have the same top token.
        perplexity: perplexity of the text under this model: exp of the mean negative log-likelihood in nats.
        reference_perplexity: perplexity of the same text under the reference.
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
    """A model against its reference at one position; `nll` is -log p of the next token, in nats."""

    kl: float
    same_top: float
    nll: float
    reference_nll: float


def position_divergence(reference: FloatArray, model: FloatArray, next_token: int) -> PositionDivergence:
    """Compare two predictions of `next_token`, both as log-probabilities, (vocab,)."""
    return PositionDivergence(
        kl=max(0.0, float(np.sum(np.exp(reference) * (reference - model)))),  # rounding can take it below
        same_top=float(reference.argmax() == model.argmax()),
        nll=-float(model[next_token]),
        reference_nll=-float(reference[next_token]),
    )


def summarize_divergence(divergences: FloatArray, passages: NDArray[np.int64]) -> Divergence:
    """Summarize all positions.

    Args:
        divergences: PositionDivergence of each position, (positions, 4).
        passages: passage of each position, (positions,).
    """
    kl, same_top, nll, reference_nll = divergences.T  # (positions,) each
    return Divergence(
        kl_mean=_mean(kl, passages),
        kl_p99=float(np.quantile(kl, _TAIL)),
        kl_max=float(kl.max()),
        same_top=_mean(same_top, passages),
        perplexity=_exp_mean(nll, passages),
        reference_perplexity=_exp_mean(reference_nll, passages),
        perplexity_ratio=_exp_mean(nll - reference_nll, passages),
    )


def _exp_mean(values: FloatArray, passages: NDArray[np.int64]) -> Interval:
    mean = _mean(values, passages)
    return Interval(*(float(np.exp(bound)) for bound in (mean.low, mean.estimate, mean.high)))


def _mean(values: FloatArray, passages: NDArray[np.int64]) -> Interval:
    counted = np.stack((values, np.ones_like(values)), axis=1)  # (positions, 2)
    return ratio_interval(sum_by_passage(counted, passages))
