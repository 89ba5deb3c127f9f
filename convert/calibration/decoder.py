"""A Llama or Qwen2 in float32 with NumPy, one layer at a time, and its gradients.

Calibration passes all texts through a layer before it reads the next one. So only one layer's weights are in
memory, and every product of a matrix has its inputs at hand.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from ...stats.arrays import Doubles, Floats
from ..source.families import INPUTS
from .weights import DecoderWeights

Gradients = dict[str, Floats]  # by matrix or norm: gradient of its outputs, (tokens, rows)

NORM_OUTPUTS = {"attn_norm": "attention_input", "ffn_norm": "ffn_input"}  # norm -> field of LayerActivations
_NORM_READERS = {
    norm: tuple(name for name, read in INPUTS.items() if read == field)
    for norm, field in NORM_OUTPUTS.items()
}
_QUERIES = 128  # of a sequence, for which attention is computed at once


@dataclass(frozen=True)
class LayerActivations:
    """Activations of a layer for one sequence; all have a row per token.

    Attributes:
        attention_input: normalized hidden state, (tokens, hidden).
        queries: with RoPE, (kv_heads, heads / kv_heads, tokens, head_dim).
        keys: with RoPE, (kv_heads, tokens, head_dim).
        values: (kv_heads, tokens, head_dim).
        context: outputs of all heads, (tokens, heads * head_dim).
        middle: hidden state after attention, (tokens, hidden).
        ffn_input: normalized `middle`, (tokens, hidden).
        gate: outputs of ffn_gate, (tokens, ffn).
        up: outputs of ffn_up, (tokens, ffn).
        ffn_hidden: silu(gate) * up, (tokens, ffn).
    """

    attention_input: Floats
    queries: Floats
    keys: Floats
    values: Floats
    context: Floats
    middle: Floats
    ffn_input: Floats
    gate: Floats
    up: Floats
    ffn_hidden: Floats


class DecoderLayer:
    """A layer with its weights.

    Attributes:
        index: its place in the model.
        matrices: by name, (rows, columns).
        biases: by name, (rows,); empty without biases.
        norms: by name, (hidden,).
    """

    def __init__(self, model: DecoderWeights, index: int, pool: ThreadPoolExecutor | None = None) -> None:
        """Read the weights of layer `index`, with a pool one matrix per thread."""
        self.model, self.index = model, index

        def read(name: str) -> Floats:
            return np.ascontiguousarray(model.tensor(f"blk.{index}.{name}"), np.float32)

        matrices = (pool.map if pool else map)(lambda name: read(f"{name}.weight"), INPUTS)
        self.matrices = dict(zip(INPUTS, matrices, strict=True))
        biased = (name for name in INPUTS if f"blk.{index}.{name}.bias" in model.shapes)
        self.biases = {name: read(f"{name}.bias") for name in biased}
        self.norms = {name: read(f"{name}.weight") for name in NORM_OUTPUTS}

    def forward(self, hidden: Floats, ffn: tuple[Floats, Floats] | None = None) -> LayerActivations:
        """Compute what the layer multiplies for one sequence, (tokens, hidden).

        Args:
            hidden: hidden state before the layer.
            ffn: outputs of ffn_gate and ffn_up if they are known: half of the layer's time.
        """
        a = self.model.architecture
        x = rms_norm(hidden, self.norms["attn_norm"], a.rms_eps)
        queries = self._heads(self._project("attn_q", x))
        keys, values = self._heads(self._project("attn_k", x)), self._heads(self._project("attn_v", x))
        queries, keys = self._rotate(queries, 1), self._rotate(keys, 1)
        queries = queries.reshape(a.kv_heads, -1, len(hidden), a.head_dim)
        context = _merge_heads(np.concatenate([*map(_attend, queries, keys, values)]))
        middle = hidden + self._project("attn_output", context)
        y = rms_norm(middle, self.norms["ffn_norm"], a.rms_eps)
        gate, up = ffn or (self._project("ffn_gate", y), self._project("ffn_up", y))
        ffn_hidden = _sigmoid(gate)
        ffn_hidden *= gate
        ffn_hidden *= up
        return LayerActivations(x, queries, keys, values, context, middle, y, gate, up, ffn_hidden)

    def output(self, made: LayerActivations) -> Floats:
        """The hidden state after the layer, (tokens, hidden), from what forward() made."""
        return made.middle + self._project("ffn_down", made.ffn_hidden)

    def backward(self, hidden: Floats, made: LayerActivations, gradient: Floats) -> tuple[Floats, Gradients]:
        """Propagate a gradient from the layer's output to its input.

        Args:
            hidden: input of the layer, (tokens, hidden).
            made: what forward() made of it.
            gradient: gradient of the layer's output, (tokens, hidden).

        Returns:
            The gradient of `hidden`, and those of the outputs of all matrices and norms.
        """
        gradients = {"ffn_down": gradient}
        inner = gradient @ self.matrices["ffn_down"]  # (tokens, ffn)
        sigmoid = _sigmoid(made.gate)
        silu = sigmoid * made.gate
        gradients["ffn_up"] = inner * silu
        silu *= 1 - sigmoid  # in place: arrays of this size are expensive to allocate
        silu += sigmoid
        silu *= made.up
        silu *= inner
        gradients["ffn_gate"] = silu
        gradient = gradient + self._norm_gradient("ffn_norm", made.middle, gradients)
        gradients["attn_output"] = gradient
        context = self._heads(gradient @ self.matrices["attn_output"])
        context = context.reshape(made.queries.shape)
        parts = [*map(_attend_gradient, made.queries, made.keys, made.values, context)]
        queries, keys, values = (np.stack(part) for part in zip(*parts, strict=True))
        queries = queries.reshape(-1, *queries.shape[2:])  # (heads, tokens, head_dim)
        gradients["attn_q"] = _merge_heads(self._rotate(queries, -1))
        gradients["attn_k"] = _merge_heads(self._rotate(keys, -1))
        gradients["attn_v"] = _merge_heads(values)
        gradient = gradient + self._norm_gradient("attn_norm", hidden, gradients)
        return gradient, gradients

    def _project(self, name: str, inputs: Floats) -> Floats:
        outputs: Floats = inputs @ self.matrices[name].T
        if name in self.biases:
            outputs += self.biases[name]
        return outputs

    def _heads(self, rows: Floats) -> Floats:
        """Split rows by head: (tokens, heads * head_dim) to (heads, tokens, head_dim)."""
        parts = rows.reshape(len(rows), -1, self.model.architecture.head_dim)
        return np.ascontiguousarray(parts.swapaxes(0, 1))

    def _rotate(self, vectors: Floats, direction: int) -> Floats:
        """Apply RoPE to (heads, tokens, head_dim), or with direction -1 invert it."""
        half = vectors.shape[-1] // 2
        angles = np.arange(vectors.shape[1])[:, None] * self._frequencies  # (tokens, head_dim / 2)
        cosine, sine = np.cos(angles).astype(np.float32), direction * np.sin(angles).astype(np.float32)
        first, second = vectors[..., :half], vectors[..., half:]
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

    @cached_property
    def _frequencies(self) -> Doubles:
        width, theta = self.model.architecture.head_dim, self.model.architecture.rope_theta
        frequencies = theta ** (-np.arange(0, width, 2) / width)
        factors = self.model.rope_factors
        scaled: Doubles = frequencies if factors is None else frequencies / factors
        return scaled

    def _norm_gradient(self, norm: str, hidden: Floats, gradients: Gradients) -> Floats:
        """The gradient of what `norm` normalizes; that of its outputs is added to `gradients`."""
        parts = (gradients[name] @ self.matrices[name] for name in _NORM_READERS[norm])
        gradients[norm] = reduce(np.add, parts)
        return rms_norm_gradient(hidden, gradients[norm] * self.norms[norm], self.model.architecture.rms_eps)


def rms_norm(hidden: Floats, weight: Floats, eps: float) -> Floats:
    """RMSNorm of each row."""
    scaled: Floats = hidden * _inverse_rms(hidden, eps)
    scaled *= weight
    return scaled


def rms_norm_gradient(hidden: Floats, gradient: Floats, eps: float) -> Floats:
    """The gradient of rows from that of their RMSNorm, which has been multiplied by its weight."""
    scale = _inverse_rms(hidden, eps)
    along = np.einsum("tc,tc->t", hidden, gradient)[:, None] * scale**2
    result: Floats = scale * (gradient - hidden * (along / np.float32(hidden.shape[1])))
    return result


def _inverse_rms(hidden: Floats, eps: float) -> Floats:
    squares = np.einsum("tc,tc->t", hidden, hidden).astype(np.float64)[:, None]
    inverse: Floats = (1 / np.sqrt(squares / hidden.shape[1] + eps)).astype(np.float32)  # (tokens, 1)
    return inverse


def _sigmoid(values: Floats) -> Floats:
    result: Floats = values * np.float32(0.5)
    np.tanh(result, out=result)  # unlike exp, it does not overflow
    result += 1
    result *= np.float32(0.5)
    return result


def _attend(queries: Floats, keys: Floats, values: Floats) -> Floats:
    """Causal attention of the query heads, (heads, tokens, head_dim), that share a key-value head."""
    result = np.empty_like(queries)
    for start, stop in _query_blocks(len(keys)):
        weights = _attention_weights(queries[:, start:stop], keys[:stop])
        np.matmul(weights, values[:stop], out=result[:, start:stop])
    return result


def _query_blocks(tokens: int) -> Iterator[tuple[int, int]]:
    """Blocks of queries; none reads a key after its own, so a block needs the keys up to its end only."""
    for start in range(0, tokens, _QUERIES):
        yield start, min(start + _QUERIES, tokens)


def _attention_weights(queries: Floats, keys: Floats) -> Floats:
    """Probabilities of the last queries, (heads, queries, keys)."""
    count, tokens = queries.shape[1], len(keys)
    scores: Floats = (queries @ keys.T) * np.float32(keys.shape[1] ** -0.5)
    scores += np.triu(np.full((count, tokens), -np.inf, np.float32), 1 + tokens - count)
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def _attend_gradient(
    queries: Floats, keys: Floats, values: Floats, gradient: Floats
) -> tuple[Floats, Floats, Floats]:
    """Gradients of the arguments of _attend() from that of its result."""
    results = np.empty_like(queries), np.zeros_like(keys), np.zeros_like(values)
    for start, stop in _query_blocks(len(keys)):
        part, outer = queries[:, start:stop], gradient[:, start:stop]
        weights = _attention_weights(part, keys[:stop])
        scores: Floats = outer @ values[:stop].T
        scores -= (scores * weights).sum(-1, keepdims=True)
        scores *= weights
        scores *= np.float32(keys.shape[1] ** -0.5)
        np.matmul(scores, keys[:stop], out=results[0][:, start:stop])
        results[1][:stop] += (scores.swapaxes(1, 2) @ part).sum(0)
        results[2][:stop] += (weights.swapaxes(1, 2) @ outer).sum(0)
    return results


def _merge_heads(vectors: Floats) -> Floats:
    """Invert DecoderLayer._heads()."""
    return np.ascontiguousarray(vectors.swapaxes(0, 1)).reshape(vectors.shape[1], -1)
