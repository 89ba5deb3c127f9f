"""Random numbers and a truncated SVD that are the same on every machine.

The random numbers are PyTorch's, by ATen's `normal_fill` and `normal_distribution`: a Mersenne Twister and
Box-Muller, in blocks of 16 with 24-bit uniforms for at least 16 numbers, else one by one with 53-bit ones.

An SVD leaves open the sign of each pair of singular vectors and, for equal singular values, the basis of the
subspace. Libraries choose differently. Here a probe, a fixed random vector, decides: each singular vector is
the one that leans towards it.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ...stats import Doubles, Floats

_BLOCK = 16
_PROBE_SEED = 13
# Relative to the largest singular value.
_EQUAL = 1e-8  # far above float64's rounding error, far below the differences in a model's weights
_ZERO = 1e-7  # above a Gram matrix's noise, the square root of float64's: its vectors differ by library


def torch_normal(seed: int, std: float, shape: tuple[int, ...]) -> Floats:
    """The result of `torch.normal(0.0, std, shape, generator=…)` seeded with `seed` on a CPU, within 1e-6."""
    state = np.random.RandomState(seed % (1 << 32))  # MT19937 seeded like PyTorch's
    count = math.prod(shape)
    values = _normal_fill(state, count) if count >= _BLOCK else _normal_serial(state, count)
    return (values * std).astype(np.float32).reshape(shape)


def _random_words(state: np.random.RandomState, count: int) -> NDArray[np.uint64]:
    return state.randint(0, 1 << 32, count, dtype=np.uint32).astype(np.uint64)


def _normal_fill(state: np.random.RandomState, count: int) -> Doubles:
    """Blocks of 16; with an incomplete last block, the last 16 numbers are drawn again."""
    whole = count // _BLOCK * _BLOCK
    words = _random_words(state, count)
    values = np.empty(count)
    values[:whole] = _box_muller(words[:whole])
    if whole != count:
        values[-_BLOCK:] = _box_muller(_random_words(state, _BLOCK))
    return values


def _box_muller(words: NDArray[np.uint64]) -> Floats:
    """In float32 like PyTorch: the rounding of theta matters where its cosine is near zero."""
    uniforms = (words & 0xFFFFFF).astype(np.float32) / np.float32(1 << 24)
    first, second = uniforms.reshape(-1, 2, _BLOCK // 2).swapaxes(0, 1)
    radius, theta = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()


def _normal_serial(state: np.random.RandomState, count: int) -> Doubles:
    pairs = -(-count // 2)
    high, low = _random_words(state, 4 * pairs).reshape(-1, 2).T
    uniforms = (((high << np.uint64(32)) | low) & np.uint64((1 << 53) - 1)) / (1 << 53)
    theta, radius = 2 * np.pi * uniforms[0::2], np.sqrt(-2 * np.log1p(-uniforms[1::2]))
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()[:count]


def svd_factors(weight: Floats, rank: int) -> tuple[Floats, Floats]:
    """Factor a matrix (out, in) by truncated SVD, U S V' = (U √S)(√S V').

    Returns:
        B = U √S, (out, r), and A = √S V', (r, in); zero where the singular value is.
    """
    exact = weight.astype(np.float64)
    values, right = _gram_svd(exact)
    nonzero = int(np.count_nonzero(values > _ZERO * values[0]))
    values, right = values[:nonzero], right[:nonzero]
    rank = min(rank, *weight.shape)
    a = np.zeros((rank, weight.shape[1]))  # (r, in)
    b = np.zeros((weight.shape[0], rank))  # (out, r)
    start = 0
    while start < min(rank, nonzero):
        stop = _end_of_equal(values, start)
        value, basis = values[start:stop].mean(), _probed_basis(right[start:stop])  # (k, in)
        kept = slice(start, min(stop, rank))
        a[kept] = np.sqrt(value) * basis[: rank - start]
        b[:, kept] = exact @ basis[: rank - start].T / np.sqrt(value)
        start = stop
    return b.astype(np.float32), a.astype(np.float32)


def _end_of_equal(values: Doubles, start: int) -> int:
    stop = start + 1
    while stop < len(values) and values[stop - 1] - values[stop] <= _EQUAL * values[0]:
        stop += 1
    return stop


def _probed_basis(subspace: Doubles) -> Doubles:
    """The orthonormal basis of `subspace`, rows (k, in), whose vectors lean towards k probes in turn."""
    probes = torch_normal(_PROBE_SEED, 1.0, subspace.shape).astype(np.float64)  # (k, in)
    q, r = np.linalg.qr(subspace @ probes.T)  # of the probes projected on the subspace, (k, k)
    return (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T @ subspace


def _gram_svd(weight: Doubles) -> tuple[Doubles, Doubles]:
    """Singular values, descending (k,), and right vectors (k, in), by the smaller Gram matrix."""
    wide = weight.shape[0] < weight.shape[1]
    squares, vectors = np.linalg.eigh(weight @ weight.T if wide else weight.T @ weight)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    columns = vectors[:, ::-1]  # (k, k)
    if not wide:
        return values, columns.T
    divisors = np.maximum(values, max(_ZERO * values[0], np.finfo(np.float64).tiny))
    return values, columns.T @ weight / divisors[:, None]
