"""How much of an adapter's effect on the logits remains in a quantized model.

The effect is what the adapter adds to the logits. In a quantized model it is measured against the same base
quantized in the same way, so that errors common to both cancel. Effects are vectors over all positions and
tokens, less the mean of each position, which the softmax does not see.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Doubles, Floats
from ...stats.bootstrap import bootstrap_interval, sum_by_passage
from ...stats.interval import Interval

EFFECT_MIN = 0.9  # slope and cosine below which the shipped model is no longer the one that was trained


@dataclass(frozen=True, slots=True)
class AdapterEffect:
    """The effect in a quantized model against that in full precision, the reference effect.

    Attributes:
        slope: slope of the effect on the reference effect, by least squares: 1 is equal strength, 0 is none.
        cosine: cosine between the two: 1 is the same direction.
        relative_error: norm of their difference over the norm of the reference effect: 0 is perfect, 1 is as
            bad as no effect.
    """

    slope: Interval
    cosine: Interval
    relative_error: Interval


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
    """Summarize all positions; None if the adapter has no effect in full precision.

    Args:
        products: inner_products() of each position, (positions, 3).
        passages: passage of each position, (positions,).
    """
    if not products[:, 2].any():
        return None
    sums = sum_by_passage(products, passages)
    return AdapterEffect(*(bootstrap_interval(sums, part) for part in (_slope, _cosine, _relative_error)))


def _slope(sums: Doubles) -> Doubles:
    effect_reference, _, reference_reference = np.moveaxis(sums, -1, 0)
    return np.asarray(effect_reference / reference_reference)


def _cosine(sums: Doubles) -> Doubles:
    effect_reference, effect_effect, reference_reference = np.moveaxis(sums, -1, 0)
    norms = np.sqrt(effect_effect * reference_reference)
    zero = np.zeros_like(norms)  # where there is no effect
    return np.asarray(np.divide(effect_reference, norms, out=zero, where=norms > 0))


def _relative_error(sums: Doubles) -> Doubles:
    effect_reference, effect_effect, reference_reference = np.moveaxis(sums, -1, 0)
    squared = np.maximum(0, effect_effect - 2 * effect_reference + reference_reference)
    return np.asarray(np.sqrt(squared / reference_reference))
