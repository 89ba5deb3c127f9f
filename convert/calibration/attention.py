"""Attention between its matrices: from the rows of queries, keys and values to the outputs of all heads."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from ...stats.arrays import Doubles, Floats
from ..source.architecture import Architecture
from .projection import Backward, Parts
from .rms_norm import read_norm
from .weights import DecoderWeights

_QUERIES = 128  # of a sequence, for which attention is computed at once


class Rotation:
    """RoPE of the first dimensions of each head, in transformers' order: halves are rotated, not pairs."""

    def __init__(self, frequencies: Doubles, scale: float) -> None:
        """Rotate by `frequencies`, (rotated dimensions / 2,), and multiply what is rotated by `scale`."""
        self._frequencies, self._scale = frequencies, scale

    def rotate(self, vectors: Floats, direction: int) -> Floats:
        """Apply RoPE to (heads, tokens, head_dim), or with direction -1 propagate its gradient back."""
        half = len(self._frequencies)
        angles = np.arange(vectors.shape[1])[:, None] * self._frequencies  # (tokens, half)
        cosine = (self._scale * np.cos(angles)).astype(np.float32)
        sine = (direction * self._scale * np.sin(angles)).astype(np.float32)
        first, second, rest = np.split(vectors, [half, 2 * half], -1)
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], -1)


def layer_rotation(weights: DecoderWeights, index: int) -> Rotation | None:
    """The rotation of layer `index`; None if it has none. Layers with a window have a theta of their own."""
    a = weights.architecture
    if index in a.unrotated:
        return None
    width, windowed = a.rotated, index in a.windowed
    theta = a.window_theta if windowed and a.window_theta else a.rope_theta
    frequencies: Doubles = theta ** (-np.arange(0, width, 2) / width)
    if not windowed:
        frequencies = frequencies / a.rope_linear
        if weights.rope_factors is not None:
            frequencies = frequencies / weights.rope_factors
    return Rotation(frequencies, a.rope_attention_factor)


class Attention:
    """A Mixer. Queries and keys are normalized where the layer has norms of them, and then rotated."""

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Floats],
        rotation: Rotation | None,
        window: int | None,
    ) -> None:
        a = architecture
        self.widths = (a.heads * a.head_dim, a.kv_width, a.kv_width)
        self._kv_heads, self._head_dim, self._rotation = a.kv_heads, a.head_dim, rotation
        self._query_norm = read_norm(tensors, "attn_q_norm", a.rms_eps)
        self._key_norm = read_norm(tensors, "attn_k_norm", a.rms_eps)
        self._attention = CausalAttention(a.attention_scale or a.head_dim**-0.5, window)

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        queries = self._rotate(self._split(self._query_norm.forward(parts[0])), 1)
        keys = self._rotate(self._split(self._key_norm.forward(parts[1])), 1)
        values = self._split(parts[2])
        queries = queries.reshape(self._kv_heads, -1, *queries.shape[1:])
        context = np.concatenate([*map(self._attention.forward, queries, keys, values)])
        return _merge(context), partial(self._backward, parts, queries, keys, values)

    def _backward(
        self, parts: Parts, queries: Floats, keys: Floats, values: Floats, gradient: Floats
    ) -> Parts:
        context = self._split(gradient).reshape(queries.shape)
        by_head = map(self._attention.backward, queries, keys, values, context)
        queries, keys, values = (np.stack(part) for part in zip(*by_head, strict=True))
        queries = queries.reshape(-1, *queries.shape[2:])  # (heads, tokens, head_dim)
        return (
            self._query_norm.backward(parts[0], _merge(self._rotate(queries, -1))),
            self._key_norm.backward(parts[1], _merge(self._rotate(keys, -1))),
            _merge(values),
        )

    def _rotate(self, vectors: Floats, direction: int) -> Floats:
        return self._rotation.rotate(vectors, direction) if self._rotation else vectors

    def _split(self, rows: Floats) -> Floats:
        """Split rows by head: (tokens, heads * head_dim) to (heads, tokens, head_dim)."""
        parts = rows.reshape(len(rows), -1, self._head_dim)
        return np.ascontiguousarray(parts.swapaxes(0, 1))


def _merge(vectors: Floats) -> Floats:
    """Invert Attention._split()."""
    return np.ascontiguousarray(vectors.swapaxes(0, 1)).reshape(vectors.shape[1], -1)


class CausalAttention:
    """Attention of queries, (heads, tokens, head_dim), to keys and values, (tokens, head_dim)."""

    def __init__(self, scale: float, window: int | None) -> None:
        """Multiply scores by `scale`; with a window, a query attends to that many tokens up to its own."""
        self._scale, self._window = np.float32(scale), window

    def forward(self, queries: Floats, keys: Floats, values: Floats) -> Floats:
        """The heads' outputs, (heads, tokens, head_dim)."""
        result = np.empty_like(queries)
        for block, read in self._blocks(len(keys)):
            weights = self._probabilities(queries[:, block], keys[read])
            np.matmul(weights, values[read], out=result[:, block])
        return result

    def backward(
        self, queries: Floats, keys: Floats, values: Floats, gradient: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """The gradients of queries, keys and values from that of the outputs."""
        results = np.empty_like(queries), np.zeros_like(keys), np.zeros_like(values)
        for block, read in self._blocks(len(keys)):
            part, outer = queries[:, block], gradient[:, block]
            weights = self._probabilities(part, keys[read])
            scores: Floats = outer @ values[read].T
            scores -= (scores * weights).sum(-1, keepdims=True)
            scores *= weights
            scores *= self._scale
            np.matmul(scores, keys[read], out=results[0][:, block])
            results[1][read] += (scores.swapaxes(1, 2) @ part).sum(0)
            results[2][read] += (weights.swapaxes(1, 2) @ outer).sum(0)
        return results

    def _blocks(self, tokens: int) -> Iterator[tuple[slice, slice]]:
        """Blocks of queries, and the keys from the first to the last that they read."""
        for start in range(0, tokens, _QUERIES):
            stop = min(start + _QUERIES, tokens)
            first = max(0, start + 1 - self._window) if self._window else 0
            yield slice(start, stop), slice(first, stop)

    def _probabilities(self, queries: Floats, keys: Floats) -> Floats:
        """Weights of the keys for the last queries, (heads, queries, keys)."""
        count, tokens = queries.shape[1], len(keys)
        scores: Floats = (queries @ keys.T) * self._scale
        masked = np.full((count, tokens), -np.inf, np.float32)
        scores += np.triu(masked, 1 + tokens - count)
        if self._window:
            scores += np.tril(masked, tokens - count - self._window)
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        return scores
