"""The leading directions of a matrix are the same whoever decomposes it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from thirteen.convert.adapter.deterministic_svd import leading_factors

Decomposed = tuple[np.ndarray, np.ndarray, np.ndarray]


def by_numpy(weight: np.ndarray) -> Decomposed:
    return np.linalg.svd(weight, full_matrices=False)


def by_torch(weight: np.ndarray) -> Decomposed:
    left, sizes, right = torch.linalg.svd(torch.from_numpy(weight), full_matrices=False)
    return left.numpy(), sizes.numpy(), right.numpy()


def by_scipy(weight: np.ndarray) -> Decomposed:
    linalg = pytest.importorskip("scipy.linalg")
    return linalg.svd(weight, full_matrices=False, lapack_driver="gesvd")


def by_transpose(weight: np.ndarray) -> Decomposed:
    left, sizes, right = np.linalg.svd(weight.T, full_matrices=False)
    return right.T, sizes, left.T


def by_permutation(weight: np.ndarray) -> Decomposed:
    """As a library that pivots its columns would: other roundings, other signs."""
    order = np.random.default_rng(5).permutation(weight.shape[1])
    left, sizes, right = np.linalg.svd(weight[:, order], full_matrices=False)
    return left, sizes, right[:, np.argsort(order)]


def by_worse_arithmetic(weight: np.ndarray) -> Decomposed:
    """As a library would that loses three more digits than float64 has to."""
    noise = np.random.default_rng(6).normal(size=weight.shape)
    return np.linalg.svd(weight + 1e-13 * noise * np.linalg.norm(weight), full_matrices=False)


DECOMPOSERS = [by_numpy, by_torch, by_scipy, by_transpose, by_permutation, by_worse_arithmetic]


def rows_of(decompose: Callable[[np.ndarray], Decomposed], flip: int = 1):
    def right(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, sizes, rows = decompose(weight)
        return sizes, flip * rows

    return right


def with_sizes(shape: tuple[int, int], sizes: list[float]) -> np.ndarray:
    """A random matrix with these singular values."""
    random = np.random.default_rng(7)
    left, right = (np.linalg.qr(random.normal(size=(n, len(sizes))))[0] for n in shape)
    return (left * sizes @ right.T).astype(np.float64)


MATRICES = {
    "tall": np.random.default_rng(1).normal(size=(96, 40)),
    "wide": np.random.default_rng(2).normal(size=(40, 96)),
    "nearly equal values": with_sizes((30, 20), [2.0, 1.0, 1.0 - 1e-5, 0.5]),
    "equal values": with_sizes((30, 20), [2.0, 2.0, 0.5, 0.25]),
    "equal values at the cut": with_sizes((30, 20), [2.0, 1.0, 1.0, 1.0, 0.5]),
    "all values equal": np.linalg.qr(np.random.default_rng(3).normal(size=(24, 24)))[0],
    "rank 1": with_sizes((30, 20), [2.0]),
    "zero": np.zeros((8, 5)),
}


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("decompose", DECOMPOSERS)
@pytest.mark.parametrize("name", MATRICES)
def test_whoever_decomposes_a_matrix_the_directions_are_the_same(name, decompose, flip):
    """Signs as the library left them would turn the meaning of the numbers round; so would a rotation."""
    weight = MATRICES[name]
    b, a = leading_factors(weight, 2)
    b_other, a_other = leading_factors(weight, 2, rows_of(decompose, flip))
    mixed = np.array([[0.3, -1.2], [0.7, 0.1]])
    delta, other = b @ mixed @ a, b_other @ mixed @ a_other
    assert np.abs(delta - other).max() <= 2.0**-9 * np.abs(delta).max()


@pytest.mark.parametrize("name", ["tall", "wide", "equal values"])
def test_the_factors_are_the_truncated_matrix(name):
    weight = MATRICES[name]
    b, a = leading_factors(weight, 2)
    left, sizes, right = np.linalg.svd(weight, full_matrices=False)
    assert np.allclose(b @ a, left[:, :2] * sizes[:2] @ right[:2], atol=1e-6)
    assert np.allclose(np.linalg.norm(a, axis=1), np.sqrt(sizes[:2]), rtol=1e-5)


def test_a_rank_beyond_the_matrix_is_cut():
    b, a = leading_factors(MATRICES["zero"], 9)
    assert (b.shape, a.shape) == ((8, 5), (5, 5))
    assert not a.any()
