"""Truncated SVD that gives the same factors on every machine.

A singular value decomposition is not unique: it leaves open the sign of each pair of singular vectors and,
for equal singular values, the basis of their subspace. Libraries choose differently, and change with their
version. Here a probe, a fixed random vector, decides: each singular vector is the one that leans towards it.
"""

import numpy as np

from ...stats.arrays import Doubles, Floats
from .torch_random import torch_normal

_PROBE_SEED = 13
# Relative to the largest singular value.
_EQUAL = 1e-8  # far above float64's rounding error, far below the differences in a model's weights
_ZERO = 1e-7  # above a Gram matrix's noise, the square root of float64's: its vectors differ by library


def svd_factors(weight: Floats, rank: int) -> tuple[Floats, Floats]:
    """Factor a matrix by truncated SVD, U S V' = (U √S)(√S V').

    Args:
        weight: a matrix of finite numbers, (out, in).
        rank: number of singular values, at most the smaller dimension.

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
    """Singular values, descending (k,), and right singular vectors as rows (k, in).

    They come from the eigenvectors of the smaller Gram matrix: faster, and as exact for the leading values.
    """
    wide = weight.shape[0] < weight.shape[1]
    squares, vectors = np.linalg.eigh(weight @ weight.T if wide else weight.T @ weight)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    columns = vectors[:, ::-1]  # (k, k)
    if not wide:
        return values, columns.T
    divisors = np.maximum(values, max(_ZERO * values[0], np.finfo(np.float64).tiny))
    return values, columns.T @ weight / divisors[:, None]
