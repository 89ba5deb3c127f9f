"""The KL divergence of a model's predictions from those of another one, and its gradient in all weights."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .chunks import Chunk
from .decoder import (
    EMBEDDING,
    INPUTS,
    NORM_OUTPUTS,
    Array,
    DecoderLayer,
    DecoderWeights,
    Doubles,
    Gradients,
    LayerActivations,
    output_matrix,
    rms_norm,
    rms_norm_gradient,
)
from .hidden_states import layer_states

_ROWS = 8192  # of the output matrix at once
_POSITIONS = 512  # whose logits are in memory at once
_PARTS = 8  # of these positions, each the work of one thread


class TrainableWeights(DecoderWeights, Protocol):
    """The weights of a model that learns."""

    def add_gradient(self, name: str, start: int, gradient: Array) -> None:
        """Add a gradient of rows `start` onward of a tensor, (n, …), to those before.

        Threads add gradients of different rows at the same time.
        """


@dataclass(frozen=True)
class Target:
    """A chunk of text, and what the teacher predicts there.

    Attributes:
        tokens: the chunk.
        inputs: inputs of the teacher's output matrix, (tokens, hidden).
    """

    tokens: Chunk
    inputs: Array


class Distillation:
    """A model that learns to predict what a teacher predicts. Both have the same vocabulary."""

    def __init__(self, teacher: DecoderWeights, student: TrainableWeights, pool: ThreadPoolExecutor) -> None:
        self._teacher, self._student, self._pool = teacher, student, pool

    def targets(self, chunks: Sequence[Chunk]) -> list[Target]:
        """Run the teacher over chunks of text.

        Raises:
            ModelFileError: its activations are not finite.
        """
        *_, states = layer_states(self._teacher, chunks, self._pool)
        norm = _output_norm(self._teacher)
        return [
            Target(chunk, rms_norm(one, norm, self._teacher.rms_eps))
            for chunk, one in zip(chunks, states, strict=True)
        ]

    def divergence(self, targets: Sequence[Target]) -> Doubles:
        """The student's KL divergence from the teacher at each position of all targets, in nats.

        Raises:
            ModelFileError: the student's activations are not finite.
        """
        *_, states = layer_states(self._student, [target.tokens for target in targets], self._pool)
        norm, student = _output_norm(self._student), self._student
        wanted = np.concatenate([target.inputs for target in targets])
        inputs = rms_norm(np.concatenate(states), norm, student.rms_eps)
        parts = range(0, len(inputs), _POSITIONS)
        return np.concatenate(
            [
                self._compare(wanted[start : start + _POSITIONS], inputs[start : start + _POSITIONS])[0]
                for start in parts
            ]
        )

    def add_gradients(self, targets: Sequence[Target]) -> float:
        """Add the gradient of the mean divergence to the student's, and return this divergence in nats.

        Raises:
            ModelFileError: the student's activations are not finite.
        """
        *before, states = layer_states(self._student, [target.tokens for target in targets], self._pool)
        loss, gradients = self._output_gradients(targets, states)
        for index in reversed(range(len(before))):
            gradients = self._layer_gradients(index, before[index], gradients)
        tokens = np.concatenate([target.tokens for target in targets])
        self._add_lookup_gradients(tokens, np.concatenate(gradients))
        return loss

    def _output_gradients(
        self, targets: Sequence[Target], states: Sequence[Array]
    ) -> tuple[float, list[Array]]:
        """The mean divergence, and its gradients at the last hidden states."""
        student, norm = self._student, _output_norm(self._student)
        hidden, wanted = np.concatenate(states), np.concatenate([target.inputs for target in targets])
        inputs = rms_norm(hidden, norm, student.rms_eps)
        gradient, total = np.empty_like(hidden), 0.0
        for start in range(0, len(hidden), _POSITIONS):
            part = slice(start, start + _POSITIONS)
            losses, logits = self._compare(wanted[part], inputs[part])
            logits /= len(hidden)
            total += float(losses.sum())
            gradient[part] = self._propagate(logits, inputs[part])
        student.add_gradient("output_norm.weight", 0, _norm_gradient(norm, inputs, gradient))
        gradient = rms_norm_gradient(hidden, gradient * norm, student.rms_eps)
        ends = np.cumsum([len(one) for one in states])[:-1]
        return total / len(hidden), np.split(gradient, ends)

    def _compare(self, wanted: Array, inputs: Array) -> tuple[Doubles, Array]:
        """The divergence at each position, and its gradient at the student's logits, (positions, vocab)."""
        teacher = _logits(self._teacher, wanted, self._pool)
        student = _logits(self._student, inputs, self._pool)
        losses = np.empty(len(inputs))

        def compare(part: slice) -> None:
            _log_softmax(teacher[part])
            _log_softmax(student[part])
            probabilities = np.exp(teacher[part])
            losses[part] = np.einsum("tv,tv->t", probabilities, teacher[part] - student[part])
            np.exp(student[part], out=student[part])
            student[part] -= probabilities

        step = max(1, -(-len(inputs) // _PARTS))
        list(self._pool.map(compare, (slice(at, at + step) for at in range(0, len(inputs), step))))
        return losses, student

    def _propagate(self, logits: Array, inputs: Array) -> Array:
        """Add the output matrix's gradient, and return that of its inputs."""
        student, name = self._student, output_matrix(self._student)

        def propagate(block: slice) -> Array:
            part = np.ascontiguousarray(logits[:, block])
            student.add_gradient(name, block.start, part.T @ inputs)
            product: Array = part @ student.rows(name, block.start, block.stop)
            return product

        return reduce(np.add, self._pool.map(propagate, _blocks(student)))

    def _layer_gradients(
        self, index: int, before: Sequence[Array], gradients: Sequence[Array]
    ) -> list[Array]:
        """Add the gradients of a layer's weights, and return those of its inputs."""
        layer = DecoderLayer(self._student, index, self._pool)

        def run(hidden: Array, gradient: Array) -> tuple[LayerActivations, Array, Gradients]:
            made = layer.forward(hidden)
            return made, *layer.backward(hidden, made, gradient)

        made, inner, outputs = zip(*self._pool.map(run, before, gradients), strict=True)

        def add(name: str) -> None:
            tensor = f"blk.{index}.{name}"
            gradient = np.concatenate([one[name] for one in outputs])
            field = INPUTS.get(name) or NORM_OUTPUTS[name]
            values = np.concatenate([getattr(one, field) for one in made])
            if name in NORM_OUTPUTS:
                product = _norm_gradient(layer.norms[name], values, gradient)
            else:
                product = gradient.T @ values
            self._student.add_gradient(f"{tensor}.weight", 0, product)
            if name in layer.biases:
                self._student.add_gradient(f"{tensor}.bias", 0, gradient.sum(0))

        list(self._pool.map(add, (*INPUTS, *NORM_OUTPUTS)))
        return list(inner)

    def _add_lookup_gradients(self, tokens: NDArray[np.int64], gradient: Array) -> None:
        """Add the gradients of the rows of the token embedding that were looked up."""
        distinct, inverse = np.unique(tokens, return_inverse=True)
        sums = np.zeros((len(distinct), gradient.shape[1]), np.float32)
        np.add.at(sums, inverse, gradient)
        for token, row in zip(distinct.tolist(), sums, strict=True):
            self._student.add_gradient(EMBEDDING, token, row[None])


def _output_norm(weights: DecoderWeights) -> Array:
    return weights.rows("output_norm.weight", 0, weights.shape.hidden)


def _norm_gradient(norm: Array, outputs: Array, gradient: Array) -> Array:
    """The gradient of a norm's weights from that of its outputs; of a weight of 0 it is lost, so 0."""
    normalized = np.divide(outputs, norm, out=np.zeros_like(outputs), where=norm != 0)
    product: Array = np.einsum("tc,tc->c", gradient, normalized)
    return product


def _blocks(weights: DecoderWeights) -> list[slice]:
    """The rows of the output matrix in blocks."""
    vocab = weights.shape.vocab
    return [slice(start, min(start + _ROWS, vocab)) for start in range(0, vocab, _ROWS)]


def _logits(weights: DecoderWeights, inputs: Array, pool: ThreadPoolExecutor) -> Array:
    """The logits of each position, (positions, vocab)."""
    logits, name = np.empty((len(inputs), weights.shape.vocab), np.float32), output_matrix(weights)

    def compute(block: slice) -> None:
        logits[:, block] = inputs @ weights.rows(name, block.start, block.stop).T

    list(pool.map(compute, _blocks(weights)))
    return logits


def _log_softmax(logits: Array) -> None:
    """Replace logits by log-probabilities, in place."""
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
