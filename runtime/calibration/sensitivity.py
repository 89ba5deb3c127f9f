"""Sensitivity of a model's predictions to quantization errors of each weight matrix, from gradients.

To second order, the KL divergence that an error of a matrix's output costs is half its quadratic form with
the Fisher information of the predictions. A backward pass of a random vector whose covariance is that Fisher
information gives an unbiased estimate for all matrices at once (Hutchinson's estimator, used like this in
HAWQ, arXiv 1905.03696). The error is taken to be independent between the rows of the output and proportional
to the length of the input, as the errors of rounded weights are.

The token embedding is also the input of the first layer. There, equal tokens have equal errors.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...files.progress import Progress, no_progress
from .activation_stats import HiddenStates
from .chunks import Chunk
from .decoder import (
    INPUTS,
    Array,
    DecoderLayer,
    DecoderWeights,
    output_matrix,
    rms_norm,
    rms_norm_gradient,
)
from .worker_lanes import lane_pool

_SEED = 13
_POSITIONS = 512  # whose logits are in memory at once
_ROWS = 8192  # of the output matrix at once

Doubles = NDArray[np.float64]
F = TypeVar("F", np.float32, np.float64)


@dataclass(frozen=True)
class Sensitivities:
    """KL divergence in nats per unit of error energy.

    Attributes:
        matmul: weight name -> sensitivity, for error energy of the output at inputs of length 1. Errors of
            the weights cost about sensitivity * E nats, where E is the sum over all weights of squared error
            times mean square of the weight's input, among inputs of length 1.
        lookup: sensitivity to error energy of the looked-up rows of the token embedding, at rows of length 1.
    """

    matmul: dict[str, float]
    lookup: float


def measure_sensitivities(
    weights: DecoderWeights,
    trace: HiddenStates,
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivities:
    """Measure the sensitivity of every weight matrix and of the embedding lookup.

    Args:
        weights: the model.
        trace: hidden states of a few sequences.
        threads: compute threads; by default one per physical core.
        progress: called after the output matrix, and after each layer.
    """
    layers, positions = weights.shape.layers, sum(map(len, trace.tokens))
    with lane_pool(threads) as pool:
        gradients, energy = _output_gradients(weights, trace, pool)
        energies = {output_matrix(weights): energy}
        progress(1, 1 + layers)
        for index in reversed(range(layers)):
            layer = DecoderLayer(weights, index)
            gradients, found = _layer_gradients(layer, trace.layers[index], gradients, pool)
            energies |= {f"blk.{index}.{name}.weight": energy for name, energy in found.items()}
            progress(1 + layers - index, 1 + layers)
    lookup = sum(map(_lookup_energy, trace.tokens, trace.layers[0], gradients))
    per_position = {name: energy / 2 / positions for name, energy in energies.items()}
    return Sensitivities(per_position, lookup / 2 / positions)


def _layer_gradients(
    layer: DecoderLayer, hidden: list[Array], gradients: list[Array], pool: ThreadPoolExecutor
) -> tuple[list[Array], dict[str, float]]:
    """The gradients of a layer's inputs from those of its outputs, and the energy of each matrix."""

    def run(states: Array, gradient: Array) -> tuple[Array, dict[str, float]]:
        made = layer.forward(states)
        before, outputs = layer.backward(states, made, gradient)
        return before, {name: _energy(getattr(made, INPUTS[name]), outputs[name]) for name in outputs}

    before, energies = zip(*pool.map(run, hidden, gradients), strict=True)
    return list(before), {name: sum(one[name] for one in energies) for name in energies[0]}


def _energy(inputs: Array, gradient: Array) -> float:
    """Sum over the tokens of |input|² |gradient|², per row of the matrix."""
    return float(_square_lengths(inputs) @ _square_lengths(gradient) / gradient.shape[1])


def _lookup_energy(tokens: Chunk, rows: Array, gradient: Array) -> float:
    """Sum over the different tokens of |sum of |row| gradient|², per column."""
    distinct, inverse = np.unique(np.array(tokens), return_inverse=True)
    sums = np.zeros((len(distinct), rows.shape[1]))
    np.add.at(sums, inverse, np.sqrt(_square_lengths(rows))[:, None] * gradient)
    return float(np.square(sums).sum() / rows.shape[1])


def _square_lengths(rows: Array) -> Doubles:
    """Square of each row's length, (n,)."""
    squares: Doubles = np.einsum("tc,tc->t", rows, rows).astype(np.float64)
    return squares


def _output_gradients(
    weights: DecoderWeights, trace: HiddenStates, pool: ThreadPoolExecutor
) -> tuple[list[Array], float]:
    """The gradients of the last hidden states, and the energy of the output matrix."""
    norm = weights.rows("output_norm.weight", 0, weights.shape.hidden)
    hidden = np.concatenate(trace.layers[-1])  # (positions, hidden)
    gradients, energy = [], 0.0
    for start in range(0, len(hidden), _POSITIONS):
        rows = hidden[start : start + _POSITIONS]
        inputs = rms_norm(rows, norm, weights.rms_eps)
        gradient, fisher = _LogitGradient(weights, inputs, seed=start).compute(pool)
        energy += float(_square_lengths(inputs) @ fisher) / weights.shape.vocab
        gradients.append(rms_norm_gradient(rows, gradient * norm, weights.rms_eps))
    ends = np.cumsum([len(tokens) for tokens in trace.tokens])[:-1]
    return np.split(np.concatenate(gradients), ends), energy


class _LogitGradient:
    """Gradient of the output matrix's inputs, from a random vector at the logits of each position.

    With probabilities p, random signs z and r = sqrt(p) z, the vector r - p (sum of r) has the covariance
    diag(p) - p p', which is the Fisher information of the logits. Rows of the matrix are read in blocks.
    """

    def __init__(self, weights: DecoderWeights, inputs: Array, seed: int) -> None:
        vocab = weights.shape.vocab
        self._weights, self._inputs, self._seed = weights, inputs, seed
        self._blocks = [slice(start, min(start + _ROWS, vocab)) for start in range(0, vocab, _ROWS)]
        self._values = np.empty((len(inputs), vocab), np.float32)  # logits, then their exponentials, then r

    def compute(self, pool: ThreadPoolExecutor) -> tuple[Array, Doubles]:
        """The gradient, (positions, hidden), and the trace of each position's Fisher information."""
        list(pool.map(self._compute_logits, self._blocks))
        self._values -= self._values.max(1, keepdims=True)
        total = _sum(pool.map(self._exponentiate, self._blocks)).astype(np.float32)[:, None]
        drawn = list(pool.map(lambda block: self._draw(block, total), self._blocks))
        squares, sums = _sum(one for one, _ in drawn), _sum(other for _, other in drawn)
        projected = sums.astype(np.float32)[:, None]
        gradient = _sum(pool.map(lambda block: self._propagate(block, projected), self._blocks))
        return gradient, 1 - squares

    def _rows(self, block: slice) -> Array:
        return self._weights.rows(output_matrix(self._weights), block.start, block.stop)

    def _compute_logits(self, block: slice) -> None:
        self._values[:, block] = self._inputs @ self._rows(block).T

    def _exponentiate(self, block: slice) -> Doubles:
        part = self._values[:, block]
        np.exp(part, out=part)
        total: Doubles = part.sum(1, dtype=np.float64)
        return total

    def _draw(self, block: slice, total: Array) -> tuple[Doubles, Doubles]:
        """Replace exponentials by r; returns the sums of p² and of r."""
        part = self._values[:, block]
        part /= total
        squares = np.einsum("tv,tv->t", part, part).astype(np.float64)
        np.sqrt(part, out=part)
        random = np.random.default_rng((_SEED, self._seed, block.start))
        part *= random.integers(0, 2, part.shape, np.int8) * np.int8(2) - np.int8(1)
        return squares, part.sum(1, dtype=np.float64)

    def _propagate(self, block: slice, projected: Array) -> Array:
        drawn = self._values[:, block]
        vector: Array = drawn * (1 - drawn * projected)  # r - p (sum of r)
        product: Array = vector @ self._rows(block)
        return product


def _sum(arrays: Iterable[NDArray[F]]) -> NDArray[F]:
    """Sum of at least one array, in order."""
    return reduce(np.add, arrays)
