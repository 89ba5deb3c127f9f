"""How the inputs of each weight matrix vary together: in full among neighbours, by a sketch over all columns.

All of it would take 268 MB for each of Llama 3.2 1B's widest matrices. So the covariance is kept in blocks of
neighbouring columns, and what couples the blocks as a matrix of low rank: a Nyström approximation from one
pass over the tokens (Tropp, Yurtsever, Udell, Cevher 2017, arXiv 1706.05736, algorithm 3).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..llama.eval_callback import MatMul

Array = NDArray[np.float32]

WIDTH = 640  # the widest block of columns whose covariance is kept in full
RANK = 64  # of the sketch that is kept
PROBES = 96  # random vectors that it is made from; some more than it has columns, for accuracy
_SEED = 13
_GIVEN_THE_SAME = (".attn_k.weight", ".attn_v.weight", ".ffn_up.weight")  # as attn_q and ffn_gate


class CovarianceTap:
    """A tap that sums up the products of inputs, over all tokens, of each layer.

    Every token counts alike: its inputs are divided by their length. Else a few tokens, such as the first of
    a text, whose activations are hundreds of times larger, would be all that is seen.

    Attributes:
        counts: by weight, the tokens so far.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._blocks: dict[str, Array] = {}  # (blocks, width, width)
        self._probed: dict[str, Array] = {}  # (columns, PROBES)

    def __call__(self, product: MatMul) -> None:
        """Add a product's, unless another weight was given the same."""
        name, inputs = product.weight, product.inputs  # (tokens, columns)
        if name.endswith(_GIVEN_THE_SAME):
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
            # A contiguous block at a time: only so does numpy hand the product to BLAS.
            part = np.ascontiguousarray(unit[:, block * width : (block + 1) * width])
            self._blocks[name][block] += part.T @ part
        if name in self._probed:
            self._probed[name] += unit.T @ (unit @ probes)
        self.counts[name] += len(inputs)

    def blocks(self) -> dict[str, Array]:
        """The means over the tokens, (blocks, width, width) by weight; all blocks' traces together are 1."""
        return {name: sums / np.float32(self.counts[name]) for name, sums in self._blocks.items()}

    def sketches(self) -> dict[str, Array]:
        """By weight L, (columns, rank): L @ L.T is the mean over the tokens, as nearly as its rank allows.

        There is none where one block has all columns.
        """
        return {name: nystrom(sums / np.float32(self.counts[name])) for name, sums in self._probed.items()}


def nystrom(probed: Array) -> Array:
    """A square root of a covariance, from its product with `_probes`, (columns, probes).

    Returns:
        L, (columns, rank), rank at most RANK: L @ L.T is never more than the covariance in any direction.
    """
    probes, probed = _probes(len(probed)).astype(np.float64), probed.astype(np.float64)
    shift = np.finfo(np.float32).eps * np.linalg.norm(probed)  # so that the core is surely positive
    shifted = probed + shift * probes
    core = probes.T @ shifted
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    inverse_root = vectors / np.sqrt(np.maximum(values, shift * np.finfo(np.float64).eps))
    left, singular, _ = np.linalg.svd(shifted @ inverse_root, full_matrices=False)
    root = np.sqrt(np.maximum(singular**2 - shift, 0))[:RANK]
    low: Array = (left[:, : len(root)] * root).astype(np.float32)
    return low


def block_width(columns: int) -> int:
    """The widest block, at most WIDTH, that divides `columns`; if it can be, of whole blocks of any type."""
    for unit in (256, 32, 1):
        if columns % unit == 0:
            return max(width for width in range(unit, WIDTH + 1, unit) if columns % width == 0)
    raise AssertionError(columns)


@cache
def _probes(columns: int) -> Array:
    return np.random.default_rng(_SEED).standard_normal((columns, min(PROBES, columns)), np.float32)
