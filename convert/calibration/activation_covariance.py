"""Weighted covariance of each matrix's inputs: exact blocks of neighbouring columns, and a low-rank sketch.

The full covariance would take 268 MB for each of the widest matrices of Llama 3.2 1B. So blocks on its
diagonal are stored in full. A Nyström approximation of low rank, made in one pass over the tokens, covers all
columns (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1706.05736, algorithm 3).
"""

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from ...errors import FileError
from ...stats import Doubles, Floats

WIDTH_MAX = 640  # columns of a block
RANK = 64  # of the sketch
PROBES = 96  # random vectors; more than RANK, for accuracy
_SEED = 13


class InputSums:
    """Sums over the input vectors x of matrices: of x², and of (|g| / |x|) x xᵀ.

    Here g is the gradient of the predictions at the outputs of all matrices with this input. For the expected
    loss the weight of x xᵀ would be |g|². But one random vector gives a noisy estimate of |g|², and a few
    tokens would dominate: on SmolLM2-135M in IQ4_NL, KL is 0.059 with |g| / |x|, 0.064 with |g|², and 0.075
    with 1 / |x|².

    Attributes:
        squares: sums of squares, (columns,).
        energies: sum of |g|² |x|² for each matrix, (matrices,).
        blocks: diagonal blocks of the weighted covariance, (blocks, width, width); once finished, their
            traces sum to 1, or to 0 if all gradients are 0.
        low_rank: L (columns, rank) of the sketch, see nystrom_factor(); None if one block covers all columns.
    """

    def __init__(self, columns: int, matrices: int) -> None:
        width = block_width(columns)
        self.squares, self.energies, self._trace = np.zeros(columns), np.zeros(matrices), 0.0
        self.blocks = np.zeros((columns // width, width, width), np.float32)
        probed = columns if width < columns else 0  # one block needs no sketch
        self._probed = np.zeros((probed, min(PROBES, columns)), np.float32)
        self.low_rank: Floats | None = None

    def add(self, inputs: Floats, gradients: Sequence[Doubles]) -> None:
        """Add vectors, (tokens, columns), with |g|² of each token for each matrix, (tokens,)."""
        width = self.blocks.shape[1]
        squares = np.square(inputs)
        self.squares += squares.sum(0)
        lengths = squares.sum(1).astype(np.float64)  # |x|²
        energies = np.stack(gradients) * lengths  # (matrices, tokens)
        self.energies += energies.sum(1)
        weighted = np.sqrt(energies.sum(0))  # |g| |x|
        self._trace += float(weighted.sum())
        weights = np.divide(weighted, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        scaled = inputs * np.sqrt(weights).astype(np.float32)[:, None]
        for block in range(len(self.blocks)):
            # numpy calls BLAS for contiguous arrays only.
            part = np.ascontiguousarray(scaled[:, block * width : (block + 1) * width])
            self.blocks[block] += part.T @ part
        if self._probed.size:
            self._probed += scaled.T @ (scaled @ _probes(inputs.shape[1]))

    def finish(self, weight: str, others: Iterable["InputSums"] = ()) -> "InputSums":
        """These sums and those of `others` as statistics; nothing can be added afterwards.

        Args:
            weight: name of a matrix that multiplies the vectors, for the error.
            others: sums of further vectors.

        Raises:
            FileError: a sum is not finite.
        """
        for other in others:
            self.squares += other.squares
            self.energies += other.energies
            self._trace += other._trace
            self.blocks += other.blocks
            self._probed += other._probed
        if self._trace > 0:
            self.blocks /= self._trace
            self._probed /= self._trace
        if not all(np.isfinite(sums).all() for sums in (self.squares, self.blocks, self._probed)):
            raise FileError(f"the model's activations are not finite numbers: those that {weight} multiplies")
        if self._probed.size:
            self.low_rank = nystrom_factor(self._probed)
        del self._probed
        return self


def nystrom_factor(probed: Floats) -> Floats:
    """Factor the Nyström approximation of a covariance.

    Args:
        probed: product of the covariance and `_probes`, (columns, probes).

    Returns:
        L (columns, rank), rank at most RANK. L @ L.T exceeds the covariance in no direction.
    """
    if not probed.any():
        return probed[:, :0]
    probes, probed = _probes(len(probed)).astype(np.float64), probed.astype(np.float64)
    shift = np.finfo(np.float32).eps * np.linalg.norm(probed)  # makes the core positive definite
    shifted = probed + shift * probes
    core = probes.T @ shifted
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    inverse_root = vectors / np.sqrt(np.maximum(values, shift * np.finfo(np.float64).eps))
    left, singular, _ = np.linalg.svd(shifted @ inverse_root, full_matrices=False)
    root = np.sqrt(np.maximum(singular**2 - shift, 0))[:RANK]
    factor: Floats = (left[:, : len(root)] * root).astype(np.float32)
    return factor


def block_width(columns: int) -> int:
    """Return the largest divisor of `columns` up to WIDTH_MAX that quantization blocks divide.

    It is a multiple of 256 if `columns` is, else of 32 if `columns` is.
    """
    unit = next(unit for unit in (256, 32, 1) if columns % unit == 0)
    return max(width for width in range(unit, WIDTH_MAX + 1, unit) if columns % width == 0)


@cache
def _probes(columns: int) -> Floats:
    return np.random.default_rng(_SEED).standard_normal((columns, min(PROBES, columns)), np.float32)
