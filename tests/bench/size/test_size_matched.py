"""Comparison of planned files with stock files, on made-up divergences."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.bench.fidelity.kl_divergence import PositionDivergence, summarize_divergence
from thirteen.bench.size.size_matched import (
    SIZE_TOLERANCE,
    CurvePoint,
    FileKind,
    MeasuredFile,
    compare_at_equal_size,
    compare_variants,
    kl_at_size,
    pareto_front,
)

PASSAGES = np.repeat(np.arange(12), 5)
sizes = st.integers(1, 10**10)
divergences = st.floats(1e-6, 10)
files = st.lists(st.tuples(sizes, divergences), min_size=1, max_size=12)


def file(kind: FileKind, name: str, file_bytes: int, kl: float | np.ndarray) -> MeasuredFile:
    """A file measured at 60 positions."""
    values = np.broadcast_to(kl, PASSAGES.shape).astype(float)
    divergences = np.array([PositionDivergence(value, 1, 2, 2) for value in values])
    return MeasuredFile(
        CurvePoint(kind, name, file_bytes, 4.5, "", summarize_divergence(divergences, PASSAGES), None), values
    )


def compare(planned: MeasuredFile, *stock: MeasuredFile, kind: str = "uniform"):
    return compare_at_equal_size(planned, [planned, *stock], kind, PASSAGES)


@given(files)
def test_the_pareto_front_is_the_files_that_no_other_beats(pairs: list[tuple[int, float]]) -> None:
    front = pareto_front(pairs)
    unbeaten = {
        (size, kl)
        for size, kl in pairs
        if not any((s <= size and k < kl) or (s < size and k <= kl) for s, k in pairs)
    }
    assert set(front) == unbeaten and len(front) == len(unbeaten)
    assert front == sorted(front) and [kl for _, kl in front] == sorted((kl for _, kl in front), reverse=True)


@given(files, sizes, sizes)
def test_the_curve_passes_through_the_best_files_and_never_rises(
    pairs: list[tuple[int, float]], one: int, other: int
) -> None:
    for size, kl in pareto_front(pairs):
        assert kl_at_size(size, pairs) == pytest.approx(kl)
    for size, kl in pairs:
        assert kl_at_size(size, pairs) <= kl * (1 + 1e-9)
    low, high = (kl_at_size(size, pairs) for size in sorted((one, other)))
    if low is None:
        assert min(one, other) < min(size for size, _ in pairs)
    else:
        assert high <= low * (1 + 1e-9)
        assert min(kl for _, kl in pairs) * (1 - 1e-9) <= high


def test_between_two_files_log_kl_is_linear() -> None:
    assert kl_at_size(150, [(100, 1.0), (200, 0.01)]) == pytest.approx(0.1)
    off_the_front = (120, 2.0)
    assert kl_at_size(150, [(100, 1.0), off_the_front, (200, 0.01)]) == pytest.approx(0.1)
    assert kl_at_size(900, [(100, 1.0), (200, 0.01)]) == pytest.approx(0.01)
    assert kl_at_size(99, [(100, 1.0), (200, 0.01)]) is None
    assert kl_at_size(99, []) is None


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(files, sizes, st.floats(1e-3, 1e3))
def test_the_best_stock_file_is_no_larger_and_ratios_scale_with_the_divergence(
    pairs: list[tuple[int, float]], size: int, scale: float
) -> None:
    stock = [file("uniform", str(index), *pair) for index, pair in enumerate(pairs)]
    found = compare(file("planned", "a", size, scale), *stock)
    fitting = [kl for nbytes, kl in pairs if nbytes <= SIZE_TOLERANCE * size]
    if not fitting:
        assert (found.best, found.best_bytes, found.ratio) == (None, None, None)
    else:
        assert pairs[int(found.best)] == (found.best_bytes, min(fitting))
        for bound in (found.ratio.low, found.ratio.estimate, found.ratio.high):
            assert bound == pytest.approx(scale / min(fitting))  # the same at every position
    if found.curve_ratio is not None:
        assert found.curve_ratio * found.curve_kl == pytest.approx(scale)


def test_the_size_tolerance_applies_and_other_kinds_do_not_count() -> None:
    planned = file("planned", "a", 1000, 0.1)
    stock = (file("uniform", "near", 1004, 0.2), file("uniform", "large", 1006, 0.05), file("mix", "m", 9, 1))
    found = compare(planned, *stock)
    assert (found.best, found.best_bytes) == ("near", 1004)
    assert found.curve_kl is None is found.curve_ratio  # smaller than all, though within the tolerance
    assert compare(planned, *stock, kind="mix").best == "m"


def test_a_planned_file_well_below_its_size_is_compared_with_files_of_that_size() -> None:
    """A plan may need less than its size; then the best file of the full size was no longer compared."""
    planned = file("planned", "a", 980, 0.1)
    of_its_size = replace(planned, point=replace(planned.point, target_bytes=1000))
    other = file("uniform", "u", 1000, 0.2)
    assert compare(planned, other).best is None
    found = compare(of_its_size, other)
    assert (found.best, found.curve_kl) == ("u", pytest.approx(0.2))


def test_the_interval_is_paired_by_position() -> None:
    """Positions differ a thousandfold, but alike in both files: unpaired, the interval would be wide."""
    hard = np.random.default_rng(3).lognormal(0, 3, len(PASSAGES))
    found = compare(file("planned", "a", 100, 0.5 * hard), file("uniform", "u", 100, hard)).ratio
    assert (found.low, found.estimate, found.high) == pytest.approx((0.5, 0.5, 0.5))
    noisy = hard * np.random.default_rng(4).lognormal(0, 0.3, len(PASSAGES))
    found = compare(file("planned", "a", 100, 0.5 * noisy), file("uniform", "u", 100, hard)).ratio
    assert found.low < 0.5 * noisy.sum() / hard.sum() < found.high
    assert found.high - found.low < 1


def test_zero_divergence_still_gives_finite_ratios() -> None:
    exact, other = file("planned", "a", 100, 0.0), file("planned", "b", 100, 0.1)
    both = compare(exact, file("uniform", "u", 100, 0.0))
    assert (both.ratio.estimate, both.curve_ratio) == pytest.approx((1, 1))
    worse = compare(other, file("uniform", "u", 100, 0.0))
    assert worse.ratio.estimate > 1e6 and math.isfinite(worse.ratio.high)


@pytest.mark.parametrize("kind", ["refined", "trimmed"])
def test_variants_are_compared_with_the_planned_files_of_their_size(kind: str) -> None:
    kl = np.linspace(1, 2, len(PASSAGES))
    files = [
        file("planned", "5bpw", 100, kl),
        file(kind, "5bpw", 100, kl / 2),
        file(kind, "6bpw", 120, kl),
        file("uniform", "Q4_0", 100, kl),
    ]
    (only,) = compare_variants(files, kind, PASSAGES)
    assert only.name == "5bpw"
    assert (only.ratio.low, only.ratio.estimate, only.ratio.high) == pytest.approx((0.5, 0.5, 0.5))
