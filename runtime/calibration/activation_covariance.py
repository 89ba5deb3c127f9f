"""Covariance of each weight matrix's inputs: exact blocks of neighbouring columns, and a low-rank sketch.

The full covariance would take 268 MB for each of the widest matrices of Llama 3.2 1B. So blocks on its
diagonal are stored in full. A Nyström approximation of low rank, made in one pass over the tokens, covers all
columns (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1706.05736, algorithm 3).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

WIDTH_MAX = 640  # columns of a block
RANK = 64  # of the sketch
PROBES = 96  # random vectors; more than RANK, for accuracy
_SEED = 13


@dataclass(frozen=True)
class InputStats:
    """Statistics of the input vectors of a weight matrix.

    Attributes:
        count: number of vectors.
        squares: sums of squares, (columns,).
        blocks: diagonal blocks of the covariance, (blocks, width, width); their traces sum to 1.
        low_rank: L (columns, rank) of the sketch, see nystrom_factor(); None if one block covers all columns.
    """

    count: int
    squares: NDArray[np.float64]
    blocks: Array
    low_rank: Array | None


class InputSums:
    """Sums over the input vectors x of a weight matrix: of x², and of x xᵀ with x normalized to length 1.

    Without the normalization a few tokens would dominate the covariance, such as the first of a text, whose
    activations are hundreds of times larger.

    Attributes:
        count: number of vectors so far.
        squares: sums of squares, (columns,).
    """

    def __init__(self, columns: int) -> None:
        width = block_width(columns)
        self.count = 0
        self.squares = np.zeros(columns)
        self._blocks = np.zeros((columns // width, width, width), np.float32)
        probed = columns if width < columns else 0  # one block needs no sketch
        self._probed = np.zeros((probed, min(PROBES, columns)), np.float32)

    def add(self, inputs: Array) -> None:
        """Add vectors, (tokens, columns)."""
        width = self._blocks.shape[1]
        self.count += len(inputs)
        self.squares += np.einsum("tc,tc->c", inputs, inputs)
        length = np.linalg.norm(inputs, axis=1, keepdims=True)
        unit = np.divide(inputs, length, out=np.zeros_like(inputs), where=length > 0)
        for block in range(len(self._blocks)):
            # numpy calls BLAS for contiguous arrays only.
            part = np.ascontiguousarray(unit[:, block * width : (block + 1) * width])
            self._blocks[block] += part.T @ part
        if self._probed.size:
            self._probed += unit.T @ (unit @ _probes(inputs.shape[1]))

    def stats(self, others: Iterable["InputSums"] = ()) -> InputStats:
        """The statistics of these vectors and those of `others`; nothing can be added afterwards."""
        for other in others:
            self.count += other.count
            self.squares += other.squares
            self._blocks += other._blocks
            self._probed += other._probed
        self._blocks /= self.count
        self._probed /= self.count
        low_rank = nystrom_factor(self._probed) if self._probed.size else None
        return InputStats(self.count, self.squares, self._blocks, low_rank)


def nystrom_factor(probed: Array) -> Array:
    """Factor the Nyström approximation of a covariance.

    Args:
        probed: product of the covariance and `_probes`, (columns, probes).

    Returns:
        L (columns, rank), rank at most RANK. L @ L.T exceeds the covariance in no direction.
    """
    probes, probed = _probes(len(probed)).astype(np.float64), probed.astype(np.float64)
    shift = np.finfo(np.float32).eps * np.linalg.norm(probed)  # makes the core positive definite
    shifted = probed + shift * probes
    core = probes.T @ shifted
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    inverse_root = vectors / np.sqrt(np.maximum(values, shift * np.finfo(np.float64).eps))
    left, singular, _ = np.linalg.svd(shifted @ inverse_root, full_matrices=False)
    root = np.sqrt(np.maximum(singular**2 - shift, 0))[:RANK]
    factor: Array = (left[:, : len(root)] * root).astype(np.float32)
    return factor


def block_width(columns: int) -> int:
    """Return the largest divisor of `columns` up to WIDTH_MAX that quantization blocks divide.

    It is a multiple of 256 if `columns` is, else of 32 if `columns` is.
    """
    for unit in (256, 32, 1):
        if columns % unit == 0:
            return max(width for width in range(unit, WIDTH_MAX + 1, unit) if columns % width == 0)
    raise AssertionError(columns)


@cache
def _probes(columns: int) -> Array:
    return np.random.default_rng(_SEED).standard_normal((columns, min(PROBES, columns)), np.float32)
