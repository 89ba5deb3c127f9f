"""How much of an adapter's effect on the logits remains in a quantized model, merged or at run time.

The effect is what the adapter adds to the logits. In a quantized model it is measured against the same base
quantized in the same way, so that errors common to both cancel. Effects are vectors over all positions and
tokens, less the mean of each position, which the softmax does not see.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Doubles, Floats
from ...stats.bootstrap import bootstrap_interval, ratio_interval, sum_by_passage
from ...stats.interval import Interval
from .kl_divergence import Divergence, PositionDivergence, summarize_divergence

EFFECT_MIN = 0.9  # slope and cosine below which the shipped model is no longer the one that was trained
_KL, _ADAPTER_KL = map(PositionDivergence._fields.index, ("kl", "adapter_kl"))
RUN_TIME_GAIN_MIN = 0.05  # relative error that an adapter at run time must save, as it costs speed

Variant = Literal["merged", "run-time"]


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


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Fidelity of one variant.

    Attributes:
        divergence: its predictions.
        effect: the adapter's effect; None if not measured.
        rounding: KL divergence from the reference over that of the reference's base: how many times as much
            rounding changes the predictions as the adapter does; None if not measured.
    """

    divergence: Divergence
    effect: AdapterEffect | None
    rounding: Interval | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Comparison of the two variants.

    Attributes:
        recommended: "run-time" if its relative error is significantly lower by more than RUN_TIME_GAIN_MIN;
            otherwise "merged", which costs no speed.
        error_difference: relative error of the merged effect less that at run time.
    """

    recommended: Variant
    error_difference: Interval


def compare_merge_and_runtime(
    values: Doubles, passages: NDArray[np.int64]
) -> tuple[Fidelity, Fidelity | None, Recommendation | None]:
    """Summarize the merged variant and, if measured, the one at run time and the choice between them.

    Args:
        values: PositionDivergence and inner_products() of each position and variant, (positions, 1 or 2, 9).
            The products are zeros if the effect is not measured.
        passages: passage of each position, (positions,).
    """
    divergences, products = np.split(values, [len(PositionDivergence._fields)], axis=2)
    merged, *run_time = (
        Fidelity(
            summarize_divergence(divergences[:, variant], passages),
            summarize_effect(products[:, variant], passages),
            _rounding(divergences[:, variant], passages),
        )
        for variant in range(values.shape[1])
    )
    if not run_time:
        return merged, None, None
    if merged.effect is None:
        return merged, run_time[0], None
    difference = bootstrap_interval(
        sum_by_passage(products, passages),
        lambda sums: _relative_error(sums[..., 0, :]) - _relative_error(sums[..., 1, :]),
    )
    better = difference.low > RUN_TIME_GAIN_MIN
    return merged, run_time[0], Recommendation("run-time" if better else "merged", difference)


def _rounding(divergences: Doubles, passages: NDArray[np.int64]) -> Interval | None:
    changes = divergences[:, [_KL, _ADAPTER_KL]]
    return ratio_interval(sum_by_passage(changes, passages)) if changes[:, 1].any() else None


def fidelity_verdict(
    merged: Fidelity, run_time: Fidelity | None, choice: Recommendation | None
) -> Iterator[str]:
    """Conclusions in words, a line each."""
    yield _describe_perplexity(merged.divergence.perplexity_ratio)
    if merged.rounding:
        yield _describe_rounding(merged.rounding.estimate)
    effect = merged.effect
    if effect is None:
        return
    slope, cosine = effect.slope.estimate, effect.cosine.estimate
    kept = min(slope, cosine) >= EFFECT_MIN
    if kept:
        words = "the file does what the adapter was trained for"
    elif slope < 0.5:
        words = "the file lost most of what the adapter does"
    else:
        words = "the adapter still acts, but rounding blurs what it does to single predictions"
    error = _percent(effect.relative_error)
    yield f"merged: {words} (slope {slope:.2f}, cosine {cosine:.2f}, relative error {error})"
    if not kept:
        yield (
            f"warning: slope or cosine is below {EFFECT_MIN}: the shipped file lost a part of its adapter; "
            "a type with more bits preserves more"
        )
    if choice is not None and run_time is not None and run_time.effect is not None:
        error = _percent(run_time.effect.relative_error)
        yield {
            "run-time": f"recommended: the adapter at run time, with a relative error of {error}",
            "merged": f"recommended: merged, which costs no speed; relative error at run time: {error}",
        }[choice.recommended]


def _describe_rounding(ratio: float) -> str:
    times = max(ratio, 1 / max(ratio, 1e-9))
    text = f"{times:.1f}" if times < 10 else f"{times:,.0f}"
    if times < 1.5:
        return "rounding changes the predictions about as much as this adapter does"
    if ratio > 1:
        return f"rounding changes the predictions {text} times as much as this adapter does"
    if times > 1000:
        return "rounding changes next to nothing of what this adapter does"
    return f"this adapter changes the predictions {text} times as much as rounding does"


def _percent(error: Interval) -> str:
    return f"{100 * error.estimate:.0f} %"


def _describe_perplexity(ratio: Interval) -> str:
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    if not ratio.excludes_one:
        return f"perplexity: no significant difference ({low:+.1f} to {high:+.1f} %)"
    return f"perplexity: {100 * (ratio.estimate - 1):+.1f} % ({low:+.1f} to {high:+.1f} %)"
