"""Covariance of each weight matrix's inputs: exact blocks of neighbouring columns, and a low-rank sketch.

The full covariance would take 268 MB for each of the widest matrices of Llama 3.2 1B. So blocks on its
diagonal are stored in full. A Nyström approximation of low rank, made in one pass over the tokens, covers all
columns (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1706.05736, algorithm 3).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..llama.eval_callback import MatMul

Array = NDArray[np.float32]

WIDTH_MAX = 640  # columns of a block
RANK = 64  # of the sketch
PROBES = 96  # random vectors; more than RANK, for accuracy
_SEED = 13
_SHARED_INPUTS = (".attn_k.weight", ".attn_v.weight", ".ffn_up.weight")  # those of attn_q and ffn_gate


class CovarianceTap:
    """MatMulTap that sums x xᵀ over the input vectors x of each weight, normalized to length 1.

    Without the normalization a few tokens would dominate, such as the first of a text, whose activations are
    hundreds of times larger.

    Attributes:
        counts: weight name -> tokens so far.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._blocks: dict[str, Array] = {}  # (blocks, width, width)
        self._probed: dict[str, Array] = {}  # (columns, PROBES)

    def __call__(self, matmul: MatMul) -> None:
        """Add the inputs of a product, unless another weight has the same inputs."""
        name, inputs = matmul.weight, matmul.inputs  # (tokens, columns)
        if name.endswith(_SHARED_INPUTS):
            return
        columns = inputs.shape[1]
        width, probes = block_width(columns), _probes(columns)
        if name not in self.counts:
            self.counts[name] = 0
            self._blocks[name] = np.zeros((columns // width, width, width), np.float32)
            if width < columns:
                self._probed[name] = np.zeros(probes.shape, np.float32)
        length = np.linalg.norm(inputs, axis=1, keepdims=True)
        unit = np.divide(inputs, length, out=np.zeros_like(inputs), where=length > 0)
        for block in range(columns // width):
            # numpy calls BLAS for contiguous arrays only.
            part = np.ascontiguousarray(unit[:, block * width : (block + 1) * width])
            self._blocks[name][block] += part.T @ part
        if name in self._probed:
            self._probed[name] += unit.T @ (unit @ probes)
        self.counts[name] += len(inputs)

    def blocks(self) -> dict[str, Array]:
        """Return the mean blocks, weight name -> (blocks, width, width); their traces sum to 1."""
        return {name: sums / np.float32(self.counts[name]) for name, sums in self._blocks.items()}

    def sketches(self) -> dict[str, Array]:
        """Return low-rank factors of the covariance, weight name -> L (columns, rank); see nystrom_factor().

        A weight whose columns fit in one block has none.
        """
        means = {name: sums / np.float32(self.counts[name]) for name, sums in self._probed.items()}
        return {name: nystrom_factor(probed) for name, probed in means.items()}


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
