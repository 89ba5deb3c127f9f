"""Predictions compared at each position: their divergence, and what remains of an adapter's effect.

A trimmed file has no probability for the tokens that it dropped, so the divergence is over the kept ones: the
reference's probabilities are restricted to them and normalized again. What they lost is `outside`.

The effect of an adapter is what it adds to the logits, less the mean of each position, which the softmax does
not see. In a quantized model it is measured against the base quantized alike, so that common errors cancel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...stats import Doubles, Floats
from ...stats.intervals import Interval, bootstrap_interval, grouped_mean, ratio_interval, sum_by_passage
from .text_logits import WindowPrediction

# The adapted and the unadapted model in full precision, and both of them quantized alike.
Role = Literal["reference", "base", "shipped", "shipped_base"]

EFFECT_MIN = 0.9  # slope and cosine below which the shipped model is no longer the one that was trained
OUTSIDE, _PRODUCTS = 4, slice(5, 8)  # columns of compare_position()
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

    @classmethod
    def of(cls, values: Doubles, passages: NDArray[np.int64]) -> "Divergence":
        """Summarize compare_position() of all positions, (positions, 8), and their passages, (positions,)."""
        kl, same_top, nll, reference_nll = values.T[:4]  # (positions,) each
        return cls(
            kl_mean=grouped_mean(kl, passages),
            kl_p99=float(np.quantile(kl, _TAIL)),
            kl_max=float(kl.max()),
            same_top=grouped_mean(same_top, passages),
            perplexity=_exp_mean(nll, passages),
            reference_perplexity=_exp_mean(reference_nll, passages),
            perplexity_ratio=_exp_mean(nll - reference_nll, passages),
        )


def compare_position(
    predictions: Mapping[Role, WindowPrediction], ids: NDArray[np.int64], at: int, next_token: int
) -> tuple[float, ...]:
    """Compare the predictions of `next_token`, which comes after position `at`.

    `ids` are the reference's of the shipped file's tokens, (kept,).

    Returns:
        KL(reference || shipped) in nats; whether both have the same top token; -log p of the next token by
        the shipped file, of a dropped one that of its pieces together, and by the reference; the probability
        that the reference gives to dropped tokens; and the inner products of the adapter's effects: shipped
        times reference, shipped times itself, and reference times itself.
    """
    reference, shipped = predictions["reference"], predictions["shipped"]
    expected, found = reference.log_probabilities(at), shipped.log_probabilities(at)
    kept = expected[ids]  # (kept,)
    inside = 0.0 if len(ids) == len(expected) else float(np.log(np.exp(kept).sum()))
    kl = float(np.sum(np.exp(kept - inside) * (kept - inside - found)))
    products: tuple[float, ...] = (0.0, 0.0, 0.0)
    if "base" in predictions:
        full = _effect(reference.logits(at)[ids], predictions["base"].logits(at)[ids])
        effect = _effect(shipped.logits(at), predictions["shipped_base"].logits(at))
        # Not by BLAS: its threads and the model's would compete, which costs thirty times as much.
        pairs = (effect, full), (effect, effect), (full, full)
        products = tuple(float(np.sum(one * other)) for one, other in pairs)
    same_top = float(expected.argmax() == ids[found.argmax()])
    outside = max(0.0, -float(np.expm1(inside)))
    # Rounding can take the KL divergence below 0.
    return max(0.0, kl), same_top, shipped.nll(at), -float(expected[next_token]), outside, *products


def _effect(adapted: Floats, base: Floats) -> Doubles:
    """Change of the logits of one position by an adapter, (vocab,), less the mean over all tokens."""
    added = adapted.astype(np.float64) - base  # (vocab,)
    added -= added.mean()
    return added


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

    @classmethod
    def of(cls, values: Doubles, passages: NDArray[np.int64]) -> "AdapterEffect | None":
        """Summarize compare_position() of all positions, as for Divergence; None if there is no effect."""
        products = values[:, _PRODUCTS]  # (positions, 3)
        if not products[:, 2].any():
            return None
        sums = sum_by_passage(products, passages)
        return cls(slope=ratio_interval(sums[:, [0, 2]]), cosine=bootstrap_interval(sums, _cosine))


def _cosine(sums: Doubles) -> Doubles:
    effect_reference, effect_effect, reference_reference = np.moveaxis(sums, -1, 0)
    norms = np.sqrt(effect_effect * reference_reference)
    zero = np.zeros_like(norms)  # where there is no effect
    return np.asarray(np.divide(effect_reference, norms, out=zero, where=norms > 0))
