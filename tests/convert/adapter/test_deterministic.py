"""Random numbers match PyTorch's, and the factors of a matrix do not depend on the machine."""

import numpy as np
import pytest
import torch
from thirteen.convert.adapter.deterministic import svd_factors, torch_normal


# PyTorch draws fewer than 16 numbers one by one, and more in blocks of 16, the last of which may overlap.
@pytest.mark.parametrize(
    "shape", [(1,), (3, 1, 1), (15,), (16,), (17,), (31,), (33,), (13, 2, 2), (64, 2, 2), (10007,)]
)
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**32 + 7, 2**63 - 1])
def test_the_numbers_match_pytorch(seed, shape):
    drawn = torch_normal(seed, 0.5**0.5, shape)
    expected = torch.normal(0.0, 0.5**0.5, shape, generator=torch.Generator().manual_seed(seed)).numpy()
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=5e-7)
    assert np.linalg.norm(drawn - expected) < 1e-7 * np.linalg.norm(expected)


def with_values(shape: tuple[int, int], values: list[float]) -> np.ndarray:
    """A random matrix with these singular values."""
    random = np.random.default_rng(7)
    left, right = (np.linalg.qr(random.normal(size=(n, len(values))))[0] for n in shape)
    return (left * values @ right.T).astype(np.float64)


MATRICES = {
    "tall": np.random.default_rng(1).normal(size=(96, 40)),
    "wide": np.random.default_rng(2).normal(size=(40, 96)),
    "equal values": with_values((30, 20), [2.0, 2.0, 0.5, 0.25]),
    "equal values at the cut": with_values((30, 20), [2.0, 1.0, 1.0, 1.0, 0.5]),
    "all values equal": np.linalg.qr(np.random.default_rng(3).normal(size=(24, 24)))[0],
    "rank 1": with_values((30, 20), [2.0]),
    "zero": np.zeros((8, 5)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_factors_do_not_depend_on_the_rounding_of_a_library(name):
    """Another sign or rotation of the singular vectors would change what the trained numbers mean."""
    weight, mixed = MATRICES[name], np.array([[0.3, -1.2], [0.7, 0.1]])
    b, a = svd_factors(weight, 2)
    delta = b @ mixed @ a
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=weight.shape)
        b, a = svd_factors(weight + 1e-13 * noise * np.linalg.norm(weight), 2)
        assert np.abs(delta - b @ mixed @ a).max() <= 2.0**-9 * np.abs(delta).max()


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
