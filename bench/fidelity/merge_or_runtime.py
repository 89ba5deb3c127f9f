"""What each way to ship an adapter keeps of the model in full precision, and which way keeps more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...stats.interval import FloatArray, Interval
from . import adapter_effect
from . import kl_divergence
from .adapter_effect import AdapterEffect
from .kl_divergence import Divergence, PositionDivergence

SLOPE_MIN = 0.9  # of slope and cosine: with less, the shipped model is another one than was trained
WORTH = 0.05  # of the effect: what an adapter at run time must keep more of it, as it costs speed

Way = Literal["merged", "run-time"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What one way keeps: of the predictions, and of the adapter's effect where that was measured."""

    divergence: Divergence
    effect: AdapterEffect | None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The two ways compared.

    Attributes:
        recommended: "run-time" if that surely keeps more of the effect, else "merged", which costs no speed.
        error_difference: the merged effect's relative error less that at run time.
    """

    recommended: Way
    error_difference: Interval


def compare_merge_and_runtime(
    values: FloatArray, passages: NDArray[np.int64]
) -> tuple[Fidelity, Fidelity | None, Recommendation | None]:
    """What merging keeps, what the adapter at run time keeps, and the two compared, as far as measured.

    Args:
        values: each position's Difference and Products by way, (positions, 1 or 2, 7); the latter are zeros
            where the effect was not measured.
        passages: the passage that each position is from, (positions,).
    """
    differences, products = np.split(values, [len(PositionDivergence._fields)], axis=2)
    merged, *run_time = (
        Fidelity(
            kl_divergence.summarize_divergence(differences[:, way], passages),
            adapter_effect.summarize_effect(products[:, way], passages),
        )
        for way in range(values.shape[1])
    )
    if not run_time:
        return merged, None, None
    return merged, run_time[0], None if merged.effect is None else _choose(products, passages)


def _choose(products: FloatArray, passages: NDArray[np.int64]) -> Recommendation:
    margin = adapter_effect.error_difference(products, passages)
    return Recommendation("run-time" if margin.low > WORTH else "merged", margin)


def verdict(merged: Fidelity, run_time: Fidelity | None, choice: Recommendation | None) -> Iterator[str]:
    """What it comes to in words, a line each."""
    yield _perplexity(merged.divergence.perplexity_ratio)
    shown = merged.effect
    if shown is None:
        return
    slope, cosine, error = shown.slope.estimate, shown.cosine.estimate, _percent(shown.relative_error)
    yield f"merged: the adapter's effect has slope {slope:.2f}, cosine {cosine:.2f} and is off by {error}"
    yield from advice(merged, run_time, choice)


def advice(merged: Fidelity, run_time: Fidelity | None, choice: Recommendation | None) -> Iterator[str]:
    """What to do about the adapter's effect, a line each; nothing where it was not measured."""
    shown = merged.effect
    if shown is None:
        return
    if min(shown.slope.estimate, shown.cosine.estimate) < SLOPE_MIN:
        yield (
            f"warning: slope or cosine is below {SLOPE_MIN}: the shipped file lost a part of its adapter; "
            "a type of more bits keeps more"
        )
    if choice is not None and run_time is not None and run_time.effect is not None:
        beside = _percent(run_time.effect.relative_error)
        yield {
            "run-time": f"recommended: the adapter at run time, where its effect is off by {beside}",
            "merged": f"recommended: merged, which costs no speed; at run time it is off by {beside}",
        }[choice.recommended]


def _percent(error: Interval) -> str:
    return f"{100 * error.estimate:.0f} %"


def _perplexity(ratio: Interval) -> str:
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    if not ratio.excludes_one:
        return f"perplexity: no difference that this run could show ({low:+.1f} to {high:+.1f} %)"
    return f"perplexity: {100 * (ratio.estimate - 1):+.1f} % ({low:+.1f} to {high:+.1f} %)"
