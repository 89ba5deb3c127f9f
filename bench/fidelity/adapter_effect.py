"""How much of an adapter's effect on the logits a quantized model still shows.

The effect is what the adapter adds to the logits. In the quantized model it is measured against the same
base quantized the same way, so that errors which both have in common fall out. The effects are taken as
vectors over all positions and tokens, less what all tokens of a position share: the softmax does not see it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.llama.logits import Logits
from ...stats.bootstrap import bootstrap_interval, sum_by_passage
from ...stats.interval import FloatArray, Interval


@dataclass(frozen=True, slots=True)
class AdapterEffect:
    """The effect that a model shows, beside the one in full precision.

    Attributes:
        slope: of the shown effect on the full one, by least squares: 1 is as strong, 0 is gone.
        cosine: between the two: 1 is the same direction.
        relative_error: norm of their difference over the full one's norm; 0 is perfect, 1 as if it were gone.
    """

    slope: Interval
    cosine: Interval
    relative_error: Interval


class InnerProducts(NamedTuple):
    """Inner products of the shown effect and the full one, at one position or summed over several."""

    shown_full: float
    shown_shown: float
    full_full: float


def logit_effect(adapted: Logits, base: Logits) -> FloatArray:
    """What an adapter adds to one position's logits, (vocab,), without a shift common to all tokens."""
    added = adapted.astype(np.float64) - base  # (vocab,)
    added -= added.mean()
    return added


def inner_products(shown: FloatArray, full: FloatArray) -> InnerProducts:
    """The inner products of two effects at one position."""
    pairs = (shown, full), (shown, shown), (full, full)
    # Not by BLAS: its threads and the model's would hinder each other, which costs thirty times as much.
    return InnerProducts(*(float(np.sum(one * other)) for one, other in pairs))


def summarize_effect(values: FloatArray, passages: NDArray[np.int64]) -> AdapterEffect | None:
    """The figures of all positions; None if the adapter has no effect at all in full precision.

    Args:
        values: each position's Products, (positions, 3).
        passages: the passage that each is from, (positions,).
    """
    if not values[:, 2].any():
        return None
    sums = sum_by_passage(values, passages)
    return AdapterEffect(
        bootstrap_interval(sums, _slope),
        bootstrap_interval(sums, _cosine),
        bootstrap_interval(sums, _relative_error),
    )


def error_difference(values: FloatArray, passages: NDArray[np.int64]) -> Interval:
    """By how much the first of two shown effects has the larger relative error, paired by passage.

    Args:
        values: each position's Products of both, (positions, 2, 3).
        passages: the passage that each position is from, (positions,).
    """
    return bootstrap_interval(
        sum_by_passage(values, passages),
        lambda sums: _relative_error(sums[..., 0, :]) - _relative_error(sums[..., 1, :]),
    )


def _slope(sums: FloatArray) -> FloatArray:
    shown_full, _, full_full = np.moveaxis(sums, -1, 0)
    return np.asarray(shown_full / full_full)


def _cosine(sums: FloatArray) -> FloatArray:
    shown_full, shown_shown, full_full = np.moveaxis(sums, -1, 0)
    norms = np.sqrt(shown_shown * full_full)
    return np.asarray(
        np.divide(shown_full, norms, out=np.zeros_like(norms), where=norms > 0)
    )  # 0: it is gone


def _relative_error(sums: FloatArray) -> FloatArray:
    shown_full, shown_shown, full_full = np.moveaxis(sums, -1, 0)
    return np.asarray(np.sqrt(np.maximum(0, shown_shown - 2 * shown_full + full_full) / full_full))
