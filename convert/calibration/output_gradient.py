"""Gradients of a model's predictions at its last hidden states, from random vectors.

To second order, the KL divergence that an error of the logits costs is half its quadratic form with the
Fisher information of the predictions. A backward pass of a random vector whose covariance is that Fisher
information gives an unbiased estimate for all matrices at once (Hutchinson's estimator, used like this in
HAWQ, arXiv 1905.03696).
"""

from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import numpy as np

from ...stats.arrays import Doubles, Floats
from .decoder import DecoderWeights, RmsNorm

_SEED = 13
_POSITIONS = 512  # whose logits are in memory at once
_ROWS = 8192  # of the output matrix at once


def output_gradient(
    weights: DecoderWeights, hidden: Floats, seed: int, pool: ThreadPoolExecutor
) -> tuple[Floats, Floats, Doubles]:
    """Draw a random vector for each position and propagate it.

    Returns:
        The gradients of `hidden`, the states after the last layer, (positions, hidden); the inputs of the
        output matrix, (positions, hidden); and the trace of the Fisher information of its outputs,
        (positions,).
    """
    scale = weights.architecture.logit_scale
    norm = RmsNorm(weights.tensor(weights.output_norm), weights.architecture.rms_eps)
    inputs = norm.forward(hidden)
    parts = [
        _logit_gradient(weights, inputs[start : start + _POSITIONS] / scale, (_SEED, seed, start), pool)
        for start in range(0, len(hidden), _POSITIONS)
    ]
    of_normed: Floats = np.concatenate([gradient for gradient, _ in parts])
    traces = np.concatenate([one for _, one in parts])
    return norm.backward(hidden, of_normed / scale), inputs, np.maximum(traces, 0) / scale**2


def _logit_gradient(
    weights: DecoderWeights, inputs: Floats, seed: tuple[int, ...], pool: ThreadPoolExecutor
) -> tuple[Floats, Doubles]:
    """Gradient of the output matrix's inputs, from a random vector at the logits of each position.

    With probabilities p, random signs z and r = sqrt(p) z, the vector r - p (sum of r) has the covariance
    diag(p) - p p', which is the Fisher information of the logits. Rows of the matrix are read in blocks.

    Returns:
        The gradient, (positions, hidden), and the trace of each position's Fisher information.
    """
    vocab = weights.architecture.vocab
    blocks = [slice(start, min(start + _ROWS, vocab)) for start in range(0, vocab, _ROWS)]
    values = np.empty((len(inputs), vocab), np.float32)  # logits, then their exponentials, then r

    def rows(block: slice) -> Floats:
        return weights.rows(weights.output, block.start, block.stop)

    def compute_logits(block: slice) -> None:
        values[:, block] = inputs @ rows(block).T

    def exponentiate(block: slice) -> Any:
        part = values[:, block]
        np.exp(part, out=part)
        return part.sum(1, dtype=np.float64)

    def draw(block: slice) -> Any:
        """Replace exponentials by r; returns the sums of p² and of r."""
        part = values[:, block]
        part /= total
        squares = np.einsum("tv,tv->t", part, part).astype(np.float64)
        np.sqrt(part, out=part)
        random = np.random.default_rng((*seed, block.start))
        part *= random.integers(0, 2, part.shape, np.int8) * np.int8(2) - np.int8(1)
        return np.stack([squares, part.sum(1, dtype=np.float64)])

    def propagate(block: slice) -> Any:
        drawn = values[:, block]
        return (drawn * (1 - drawn * projected)) @ rows(block)  # r - p (sum of r)

    list(pool.map(compute_logits, blocks))
    values -= values.max(1, keepdims=True)
    total = reduce(np.add, pool.map(exponentiate, blocks)).astype(np.float32)[:, None]
    squares, sums = reduce(np.add, pool.map(draw, blocks))
    projected = sums.astype(np.float32)[:, None]
    return reduce(np.add, pool.map(propagate, blocks)), 1 - squares
