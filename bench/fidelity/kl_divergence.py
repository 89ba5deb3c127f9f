"""KL divergence and perplexity of a model against a reference, by position and over all positions.

A trimmed file has no probability for the tokens that it dropped, so the divergence is over the kept ones: the
reference's probabilities are restricted to them and normalized again. What they lost is `outside`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Doubles
from ...stats.bootstrap import grouped_mean
from ...stats.interval import Interval

_TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Divergence:
    """A model against its reference, over all positions.

    Attributes:
        kl_mean: mean of the Kullback-Leibler divergence KL(reference || model), in nats, over the tokens that
            the model has.
        kl_p99: its 99th percentile.
        kl_max: its maximum.
        same_top: share of the positions where both models have the same top token, of all tokens.
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
    """A model against its reference at one position.

    Attributes:
        kl: KL divergence in nats, over the tokens that the model has.
        same_top: 1 if both have the same top token, of all tokens; otherwise 0.
        nll: -log p of the reference's next token in nats; of a dropped one, that of its pieces together.
        reference_nll: -log p of the next token under the reference, in nats.
        outside: probability that the reference gives to tokens that the model lacks.
    """

    kl: float
    same_top: float
    nll: float
    reference_nll: float
    outside: float


def position_divergence(
    reference: Doubles, model: Doubles, next_token: int, ids: NDArray[np.int64], nll: float
) -> PositionDivergence:
    """Compare two predictions of `next_token`.

    Args:
        reference: log-probabilities of the reference, (vocab,).
        model: log-probabilities of the model, (kept,).
        next_token: the token that follows, by the reference's id.
        ids: the reference's id of each token of the model, (kept,).
        nll: -log p of the next token's pieces under the model, in nats.
    """
    kept = reference[ids]  # (kept,)
    inside = 0.0 if len(ids) == len(reference) else float(np.log(np.exp(kept).sum()))
    kl = float(np.sum(np.exp(kept - inside) * (kept - inside - model)))
    return PositionDivergence(
        kl=max(0.0, kl),  # rounding can take it below
        same_top=float(reference.argmax() == ids[model.argmax()]),
        nll=nll,
        reference_nll=-float(reference[next_token]),
        outside=max(0.0, -float(np.expm1(inside))),
    )


def summarize_divergence(divergences: Doubles, passages: NDArray[np.int64]) -> Divergence:
    """Summarize all positions.

    Args:
        divergences: PositionDivergence of each position, (positions, 5).
        passages: passage of each position, (positions,).
    """
    kl, same_top, nll, reference_nll = divergences.T[:4]  # (positions,) each
    return Divergence(
        kl_mean=grouped_mean(kl, passages),
        kl_p99=float(np.quantile(kl, _TAIL)),
        kl_max=float(kl.max()),
        same_top=grouped_mean(same_top, passages),
        perplexity=_exp_mean(nll, passages),
        reference_perplexity=_exp_mean(reference_nll, passages),
        perplexity_ratio=_exp_mean(nll - reference_nll, passages),
    )


def _exp_mean(values: Doubles, passages: NDArray[np.int64]) -> Interval:
    mean = grouped_mean(values, passages)
    return Interval(*(float(np.exp(bound)) for bound in (mean.low, mean.estimate, mean.high)))
