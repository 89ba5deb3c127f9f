"""The leading singular directions of a matrix, the same on every machine.

A singular value decomposition leaves choices open: the signs of each pair of vectors and, where singular
values are equal, the directions within their space. How a library makes them is its own affair, and changes
with its version. Here a probe makes them, a fixed random vector: each direction is the one that leans to it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...files.safetensors import Rows
from .torch_random import torch_normal

Doubles = NDArray[np.float64]
# The singular values, descending (k,), and the right singular vectors in rows (k, in), of a matrix (out, in).
Decompose = Callable[[Doubles], tuple[Doubles, Doubles]]

_PROBE_SEED = 13
_EQUAL = 1e-8  # of the largest: far above what float64 gets wrong, far below what a model's weights differ by
_NOTHING = 1e-12  # of the largest: the singular value of no direction


def leading_factors(weight: Rows, rank: int, decompose: Decompose | None = None) -> tuple[Rows, Rows]:
    """The factors B (out, r) and A (r, in) of `weight`, (out, in): its leading directions, root S in each.

    Args:
        weight: any matrix of finite numbers.
        rank: how many directions; as many as there are if those are fewer.
        decompose: what decomposes a matrix; by default numpy, by way of the smaller Gram matrix.
    """
    exact = weight.astype(np.float64)
    sizes, right = (decompose or _by_gram)(exact)
    rank = min(rank, *weight.shape)
    a = np.zeros((rank, weight.shape[1]))  # (r, in)
    b = np.zeros((weight.shape[0], rank))  # (out, r)
    start = 0
    while start < rank and sizes[start] > _NOTHING * sizes[0]:
        stop = _end_of_equals(sizes, start)
        size, chosen = sizes[start:stop].mean(), _leaning(right[start:stop])  # (k, in)
        taken = slice(start, min(stop, rank))
        a[taken] = np.sqrt(size) * chosen[: rank - start]
        b[:, taken] = exact @ chosen[: rank - start].T / np.sqrt(size)
        start = stop
    return b.astype(np.float32), a.astype(np.float32)


def _end_of_equals(sizes: Doubles, start: int) -> int:
    stop = start + 1
    while stop < len(sizes) and sizes[stop - 1] - sizes[stop] <= _EQUAL * sizes[0]:
        stop += 1
    return stop


def _leaning(space: Doubles) -> Doubles:
    """The orthonormal rows that span `space`, (k, in), and lean towards k probes in turn."""
    probes = torch_normal(_PROBE_SEED, 1.0, space.shape).astype(np.float64)  # (k, in)
    q, r = np.linalg.qr(space @ probes.T)  # of the probes as the space sees them, (k, k)
    return (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T @ space


def _by_gram(weight: Doubles) -> tuple[Doubles, Doubles]:
    """By the eigenvectors of the smaller Gram matrix: quicker, and as exact for the leading ones."""
    wide = weight.shape[0] < weight.shape[1]
    squares, vectors = np.linalg.eigh(weight @ weight.T if wide else weight.T @ weight)
    sizes = np.sqrt(np.maximum(squares[::-1], 0.0))
    columns = vectors[:, ::-1]  # (k, k)
    if not wide:
        return sizes, columns.T
    return sizes, columns.T @ weight / np.maximum(sizes, np.finfo(np.float64).tiny)[:, None]
