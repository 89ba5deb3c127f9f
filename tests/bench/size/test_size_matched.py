"""The curve through stock files, and a planned file's place beside it, on files that are only numbers."""

import math

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
    kl_at_size,
    compare_at_equal_size,
    pareto_front,
)

PASSAGES = np.repeat(np.arange(12), 5)
sizes = st.integers(1, 10**10)
divergences = st.floats(1e-6, 10)
files = st.lists(st.tuples(sizes, divergences), min_size=1, max_size=12)


def file(kind: FileKind, name: str, file_bytes: int, kl: float | np.ndarray) -> MeasuredFile:
    """A file that was measured at 60 positions."""
    values = np.broadcast_to(kl, PASSAGES.shape).astype(float)
    differences = np.array([PositionDivergence(value, 1, 2, 2) for value in values])
    return MeasuredFile(
        CurvePoint(kind, name, file_bytes, 4.5, "", summarize_divergence(differences, PASSAGES), None), values
    )


def beside(planned: MeasuredFile, *stock: MeasuredFile, kind: str = "uniform"):
    return compare_at_equal_size(planned, [planned, *stock], kind, PASSAGES)


@given(files)
def test_the_envelope_is_the_files_that_no_other_one_beats(given_: list[tuple[int, float]]) -> None:
    kept = pareto_front(given_)
    unbeaten = {
        (size, kl)
        for size, kl in given_
        if not any((s <= size and k < kl) or (s < size and k <= kl) for s, k in given_)
    }
    assert set(kept) == unbeaten and len(kept) == len(unbeaten)
    assert kept == sorted(kept) and [kl for _, kl in kept] == sorted((kl for _, kl in kept), reverse=True)


@given(files, sizes, sizes)
def test_the_curve_goes_through_the_best_files_and_never_up(
    given_: list[tuple[int, float]], one: int, other: int
) -> None:
    for size, kl in pareto_front(given_):
        assert kl_at_size(size, given_) == pytest.approx(kl)
    for size, kl in given_:
        assert kl_at_size(size, given_) <= kl * (1 + 1e-9)
    low, high = (kl_at_size(size, given_) for size in sorted((one, other)))
    if low is None:
        assert min(one, other) < min(size for size, _ in given_)
    else:
        assert high <= low * (1 + 1e-9)
        assert min(kl for _, kl in given_) * (1 - 1e-9) <= high


def test_between_two_files_the_logarithm_is_straight() -> None:
    assert kl_at_size(150, [(100, 1.0), (200, 0.01)]) == pytest.approx(0.1)
    assert kl_at_size(150, [(100, 1.0), (120, 2.0), (200, 0.01)]) == pytest.approx(0.1)  # one is beaten
    assert kl_at_size(900, [(100, 1.0), (200, 0.01)]) == pytest.approx(0.01)
    assert kl_at_size(99, [(100, 1.0), (200, 0.01)]) is None
    assert kl_at_size(99, []) is None


@settings(max_examples=50, deadline=None)
@given(files, sizes, st.floats(1e-3, 1e3))
def test_a_file_is_beside_the_best_that_is_no_larger_and_all_scale_alike(
    given_: list[tuple[int, float]], size: int, scale: float
) -> None:
    stock = [file("uniform", str(at), *of) for at, of in enumerate(given_)]
    found = beside(file("planned", "a", size, scale), *stock)
    fitting = [kl for nbytes, kl in given_ if nbytes <= SIZE_TOLERANCE * size]
    if not fitting:
        assert (found.best, found.best_bytes, found.ratio) == (None, None, None)
    else:
        assert given_[int(found.best)] == (found.best_bytes, min(fitting))
        for bound in (found.ratio.low, found.ratio.estimate, found.ratio.high):
            assert bound == pytest.approx(scale / min(fitting))  # everywhere the same
    if found.curve_ratio is not None:
        assert found.curve_ratio * found.curve_kl == pytest.approx(scale)


def test_a_hair_more_bytes_are_no_more_and_other_kinds_do_not_count() -> None:
    planned = file("planned", "a", 1000, 0.1)
    stock = (file("uniform", "near", 1004, 0.2), file("uniform", "large", 1006, 0.05), file("mix", "m", 9, 1))
    found = beside(planned, *stock)
    assert (found.best, found.best_bytes) == ("near", 1004)
    assert found.curve_kl is None is found.curve_ratio  # smaller than all, though by less than a hair
    assert beside(planned, *stock, kind="mix").best == "m"


def test_the_interval_is_paired_by_position() -> None:
    """Positions differ a thousandfold, alike for both: unpaired, the interval would be wide."""
    hard = np.random.default_rng(3).lognormal(0, 3, len(PASSAGES))
    found = beside(file("planned", "a", 100, 0.5 * hard), file("uniform", "u", 100, hard)).ratio
    assert (found.low, found.estimate, found.high) == pytest.approx((0.5, 0.5, 0.5))
    noisy = hard * np.random.default_rng(4).lognormal(0, 0.3, len(PASSAGES))
    found = beside(file("planned", "a", 100, 0.5 * noisy), file("uniform", "u", 100, hard)).ratio
    assert found.low < 0.5 * noisy.sum() / hard.sum() < found.high
    assert found.high - found.low < 1


def test_files_that_diverge_in_nothing_give_numbers_still() -> None:
    exact, other = file("planned", "a", 100, 0.0), file("planned", "b", 100, 0.1)
    both = beside(exact, file("uniform", "u", 100, 0.0))
    assert (both.ratio.estimate, both.curve_ratio) == pytest.approx((1, 1))
    worse = beside(other, file("uniform", "u", 100, 0.0))
    assert worse.ratio.estimate > 1e6 and math.isfinite(worse.ratio.high)
