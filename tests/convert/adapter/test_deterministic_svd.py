"""The factors of a matrix do not depend on the library that decomposes it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from thirteen.convert.adapter import deterministic_svd
from thirteen.convert.adapter.deterministic_svd import svd_factors

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


def by_torch(weight: np.ndarray) -> Triple:
    left, values, right = torch.linalg.svd(torch.from_numpy(weight), full_matrices=False)
    return left.numpy(), values.numpy(), right.numpy()


def by_scipy(weight: np.ndarray) -> Triple:
    linalg = pytest.importorskip("scipy.linalg")
    return linalg.svd(weight, full_matrices=False, lapack_driver="gesvd")


def by_permutation(weight: np.ndarray) -> Triple:
    """Like a library that pivots columns: other rounding errors, other signs."""
    order = np.random.default_rng(5).permutation(weight.shape[1])
    left, values, right = np.linalg.svd(weight[:, order], full_matrices=False)
    return left, values, right[:, np.argsort(order)]


def by_worse_arithmetic(weight: np.ndarray) -> Triple:
    """Like a library that loses three more digits than float64 needs to."""
    noise = np.random.default_rng(6).normal(size=weight.shape)
    return np.linalg.svd(weight + 1e-13 * noise * np.linalg.norm(weight), full_matrices=False)


SVDS = [by_torch, by_scipy, by_permutation, by_worse_arithmetic]


def right_factors(svd: Callable[[np.ndarray], Triple], flip: int):
    def right(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, values, rows = svd(weight)
        return values, flip * rows

    return right


def with_values(shape: tuple[int, int], values: list[float]) -> np.ndarray:
    """A random matrix with these singular values."""
    random = np.random.default_rng(7)
    left, right = (np.linalg.qr(random.normal(size=(n, len(values))))[0] for n in shape)
    return (left * values @ right.T).astype(np.float64)


MATRICES = {
    "tall": np.random.default_rng(1).normal(size=(96, 40)),
    "wide": np.random.default_rng(2).normal(size=(40, 96)),
    "nearly equal values": with_values((30, 20), [2.0, 1.0, 1.0 - 1e-5, 0.5]),
    "equal values": with_values((30, 20), [2.0, 2.0, 0.5, 0.25]),
    "equal values at the cut": with_values((30, 20), [2.0, 1.0, 1.0, 1.0, 0.5]),
    "all values equal": np.linalg.qr(np.random.default_rng(3).normal(size=(24, 24)))[0],
    "rank 1": with_values((30, 20), [2.0]),
    "rank 1, wide": with_values((40, 60), [2.0]),
    "zero": np.zeros((8, 5)),
}


@pytest.mark.parametrize("svd", SVDS)
@pytest.mark.parametrize("name", MATRICES)
def test_the_factors_do_not_depend_on_the_library(name, svd, monkeypatch):
    """Another sign or rotation of the singular vectors would change what the trained numbers mean."""
    weight = MATRICES[name]
    b, a = svd_factors(weight, 2)
    monkeypatch.setattr(deterministic_svd, "_gram_svd", right_factors(svd, flip=-1))
    b_other, a_other = svd_factors(weight, 2)
    mixed = np.array([[0.3, -1.2], [0.7, 0.1]])
    delta, other = b @ mixed @ a, b_other @ mixed @ a_other
    assert np.abs(delta - other).max() <= 2.0**-9 * np.abs(delta).max()


@pytest.mark.parametrize("name", ["tall", "wide", "equal values"])
def test_the_product_of_the_factors_is_the_truncated_matrix(name):
    weight = MATRICES[name]
    b, a = svd_factors(weight, 2)
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    assert np.allclose(b @ a, left[:, :2] * values[:2] @ right[:2], atol=1e-6)
    assert np.allclose(np.linalg.norm(a, axis=1), np.sqrt(values[:2]), rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(64, 576), (576, 64)])
@pytest.mark.parametrize("rank", [0, 1, 40])
def test_factors_beyond_the_rank_of_the_matrix_are_zero(shape, rank):
    """They were infinite for a wide matrix, and noise for a tall one."""
    weight = with_values(shape, [1 / (1 + n) for n in range(rank)]) if rank else np.zeros(shape)
    b, a = svd_factors(weight, 64)
    assert not a[rank:].any() and not b[:, rank:].any()
    assert np.allclose(b @ a, weight, atol=1e-6)


@pytest.mark.parametrize("name", ["tall", "wide", "nearly equal values", "equal values", "all values equal"])
def test_the_bound_on_zeros_changes_no_bit_of_other_factors(name, monkeypatch):
    """Codes that are published depend on them."""
    factors = [part.tobytes() for part in svd_factors(MATRICES[name], 4)]
    monkeypatch.setattr(deterministic_svd, "_ZERO", 0.0)
    assert [part.tobytes() for part in svd_factors(MATRICES[name], 4)] == factors
