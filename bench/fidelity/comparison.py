"""Predictions compared at each position: their divergence, and what remains of an adapter's effect.

A trimmed file has no probability for the tokens that it dropped, so the divergence is over the kept ones: the
reference's probabilities are restricted to them and normalized again. What they lost is `outside`.

The effect of an adapter is what it adds to the logits, less the mean of each position, which the softmax does
not see. In a quantized model it is measured against the base quantized alike, so that common errors cancel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...stats import Doubles, Floats
from ...stats.intervals import Interval, bootstrap_interval, grouped_mean, sum_by_passage

EFFECT_MIN = 0.9  # slope and cosine below which the shipped model is no longer the one that was trained
_TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Divergence:
    """A model against its reference, over all positions; divergences are in nats.

    `kl_mean` is KL(reference || model) over the tokens that the model has. `same_top` is the share of
    positions where both have the same top token. Perplexities are of the text, and their ratio is
    model/reference.
    """

    kl_mean: Interval
    kl_p99: float
    kl_max: float
    same_top: Interval
    perplexity: Interval
    reference_perplexity: Interval
    perplexity_ratio: Interval


class PositionDivergence(NamedTuple):
    """A model against its reference at one position, in nats.

    `nll` is -log p of the reference's next token; of a dropped one, that of its pieces together. `outside`
    is the probability that the reference gives to tokens that the model lacks.
    """

    kl: float
    same_top: float
    nll: float
    reference_nll: float
    outside: float


def position_divergence(
    reference: Doubles, model: Doubles, next_token: int, ids: NDArray[np.int64], nll: float
) -> PositionDivergence:
    """Compare two predictions of `next_token`, a token of the reference.

    The log-probabilities of the reference are (vocab,), those of the model (kept,), and `ids` are the
    reference's of the model's tokens. `nll` is that of the next token's pieces under the model.
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
    """Summarize the PositionDivergence of all positions, (positions, 5), and their passages, (positions,)."""
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


@dataclass(frozen=True, slots=True)
class AdapterEffect:
    """The effect in a quantized model against that in full precision.

    The slope, by least squares, is 1 for equal strength and 0 for none; the cosine is 1 for the same
    direction.
    """

    slope: Interval
    cosine: Interval


def logit_effect(adapted: Floats, base: Floats) -> Doubles:
    """Change of the logits of one position by an adapter, (vocab,), less the mean over all tokens."""
    added = adapted.astype(np.float64) - base  # (vocab,)
    added -= added.mean()
    return added


def inner_products(effect: Doubles, reference: Doubles) -> tuple[float, ...]:
    """Effect times reference, effect times effect, and reference times reference; (vocab,) each."""
    pairs = (effect, reference), (effect, effect), (reference, reference)
    # Not by BLAS: its threads and the model's would compete, which costs thirty times as much.
    return tuple(float(np.sum(one * other)) for one, other in pairs)


def summarize_effect(products: Doubles, passages: NDArray[np.int64]) -> AdapterEffect | None:
    """Summarize the inner_products() of all positions, (positions, 3); None if the adapter has no effect."""
    if not products[:, 2].any():
        return None
    sums = sum_by_passage(products, passages)
    return AdapterEffect(bootstrap_interval(sums, _slope), bootstrap_interval(sums, _cosine))


def _slope(sums: Doubles) -> Doubles:
    effect_reference, _, reference_reference = np.moveaxis(sums, -1, 0)
    return np.asarray(effect_reference / reference_reference)


def _cosine(sums: Doubles) -> Doubles:
    effect_reference, effect_effect, reference_reference = np.moveaxis(sums, -1, 0)
    norms = np.sqrt(effect_effect * reference_reference)
    zero = np.zeros_like(norms)  # where there is no effect
    return np.asarray(np.divide(effect_reference, norms, out=zero, where=norms > 0))
