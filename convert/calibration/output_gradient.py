"""Gradients of a model's predictions at its last hidden states, from random vectors.

To second order, the KL divergence that an error of the logits costs is half its quadratic form with the
Fisher information of the predictions. A backward pass of a random vector whose covariance is that Fisher
information gives an unbiased estimate for all matrices at once (Hutchinson's estimator, used like this in
HAWQ, arXiv 1905.03696).
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np

from ...stats.arrays import Doubles, Floats
from .rms_norm import RmsNorm
from .weights import DecoderWeights

_SEED = 13
_POSITIONS = 512  # whose logits are in memory at once
_ROWS = 8192  # of the output matrix at once


class OutputGradient:
    """Gradients of the last hidden states, one block of positions after the other."""

    def __init__(self, weights: DecoderWeights, pool: ThreadPoolExecutor) -> None:
        self._weights, self._pool = weights, pool
        self._norm = RmsNorm(weights.tensor(weights.output_norm), weights.architecture.rms_eps)
        self._scale = weights.architecture.logit_scale

    def compute(self, hidden: Floats, seed: int) -> tuple[Floats, Floats, Doubles]:
        """Draw a random vector for each position and propagate it.

        Args:
            hidden: hidden states after the last layer, (positions, hidden).
            seed: of the random vectors.

        Returns:
            The gradients of `hidden`; the inputs of the output matrix, (positions, hidden); and the trace of
            the Fisher information of its outputs, (positions,).
        """
        inputs = self._norm.forward(hidden)
        gradients, traces = [], []
        for start in range(0, len(hidden), _POSITIONS):
            part = slice(start, start + _POSITIONS)
            drawn = _LogitGradient(self._weights, inputs[part] / self._scale, (_SEED, seed, start))
            gradient, trace = drawn.compute(self._pool)
            gradients.append(gradient)
            traces.append(trace)
        gradient = self._norm.backward(hidden, np.concatenate(gradients) / self._scale)
        return gradient, inputs, np.maximum(np.concatenate(traces), 0) / self._scale**2


class _LogitGradient:
    """Gradient of the output matrix's inputs, from a random vector at the logits of each position.

    With probabilities p, random signs z and r = sqrt(p) z, the vector r - p (sum of r) has the covariance
    diag(p) - p p', which is the Fisher information of the logits. Rows of the matrix are read in blocks.
    """

    def __init__(self, weights: DecoderWeights, inputs: Floats, seed: tuple[int, ...]) -> None:
        vocab = weights.architecture.vocab
        self._weights, self._inputs, self._seed = weights, inputs, seed
        self._blocks = [slice(start, min(start + _ROWS, vocab)) for start in range(0, vocab, _ROWS)]
        self._values = np.empty((len(inputs), vocab), np.float32)  # logits, then their exponentials, then r

    def compute(self, pool: ThreadPoolExecutor) -> tuple[Floats, Doubles]:
        """The gradient, (positions, hidden), and the trace of each position's Fisher information."""
        list(pool.map(self._compute_logits, self._blocks))
        self._values -= self._values.max(1, keepdims=True)
        total = _sum(pool.map(self._exponentiate, self._blocks)).astype(np.float32)[:, None]
        drawn = list(pool.map(lambda block: self._draw(block, total), self._blocks))
        squares, sums = _sum(one for one, _ in drawn), _sum(other for _, other in drawn)
        projected = sums.astype(np.float32)[:, None]
        gradient = _sum(pool.map(lambda block: self._propagate(block, projected), self._blocks))
        return gradient, 1 - squares

    def _rows(self, block: slice) -> Floats:
        return self._weights.rows(self._weights.output, block.start, block.stop)

    def _compute_logits(self, block: slice) -> None:
        self._values[:, block] = self._inputs @ self._rows(block).T

    def _exponentiate(self, block: slice) -> Doubles:
        part = self._values[:, block]
        np.exp(part, out=part)
        total: Doubles = part.sum(1, dtype=np.float64)
        return total

    def _draw(self, block: slice, total: Floats) -> tuple[Doubles, Doubles]:
        """Replace exponentials by r; returns the sums of p² and of r."""
        part = self._values[:, block]
        part /= total
        squares = np.einsum("tv,tv->t", part, part).astype(np.float64)
        np.sqrt(part, out=part)
        random = np.random.default_rng((*self._seed, block.start))
        part *= random.integers(0, 2, part.shape, np.int8) * np.int8(2) - np.int8(1)
        return squares, part.sum(1, dtype=np.float64)

    def _propagate(self, block: slice, projected: Floats) -> Floats:
        drawn = self._values[:, block]
        vector: Floats = drawn * (1 - drawn * projected)  # r - p (sum of r)
        product: Floats = vector @ self._rows(block)
        return product


def _sum(arrays: Iterable[Any]) -> Any:
    """Sum of at least one array, in order."""
    return reduce(np.add, arrays)
