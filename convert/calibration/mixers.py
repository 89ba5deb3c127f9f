"""What a block of a layer computes between its matrices: attention, a gated activation or a convolution.

A mixer takes the outputs of the block's first matrices, which have its `widths`. forward() gives the inputs
of the last matrix, and the function from their gradient to those of the parts.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from ...stats.arrays import Doubles, Floats
from ..source.architecture import Architecture
from .parts import Backward, Parts, RmsNorm

_QUERIES = 128  # of a sequence, for which attention is computed at once
_GELU, _CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)

# An activation is x * sigmoid(argument(x)): its argument, and the derivative of that. GELU is that by tanh.
_ARGUMENTS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "silu": (lambda gate: gate, lambda gate: np.ones(1, np.float32)),
    "gelu": (
        lambda gate: _GELU * gate * (1 + _CUBIC * np.square(gate)),
        lambda gate: _GELU * (1 + 3 * _CUBIC * np.square(gate)),
    ),
}


class FeedForward:
    """A gated activation of the outputs of ffn_gate and ffn_up: act(gate) * up."""

    def __init__(self, activation: str, width: int) -> None:
        self.widths = (width, width)
        self._argument, self._slope = _ARGUMENTS[activation]

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        gate, up = parts
        hidden = _sigmoid(self._argument(gate))
        hidden *= gate
        hidden *= up
        return hidden, partial(self._backward, gate, up)

    def _backward(self, gate: Floats, up: Floats, gradient: Floats) -> Parts:
        share = _sigmoid(self._argument(gate))
        activated = share * gate
        slope = 1 - share  # in place from here: arrays of this size are expensive to allocate
        slope *= activated
        slope *= self._slope(gate)
        slope += share
        activated *= gradient
        slope *= up
        slope *= gradient
        return slope, activated


def _sigmoid(values: Floats) -> Floats:
    result: Floats = values * np.float32(0.5)
    np.tanh(result, out=result)  # unlike exp, it does not overflow
    result += 1
    result *= np.float32(0.5)
    return result


class ShortConvolution:
    """Lfm2ShortConv of transformers: c * (b * x, convolved), each column with its own kernel."""

    def __init__(self, kernel: Floats) -> None:
        """Convolve with `kernel`, (hidden, width), whose last entry is for the token itself."""
        self.widths = (len(kernel),) * 3
        self._kernel = kernel

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        b, c, x = parts
        convolved = self._convolve(b * x)
        return c * convolved, partial(self._backward, parts, convolved)

    def _backward(self, parts: Parts, convolved: Floats, gradient: Floats) -> Parts:
        b, c, x = parts
        product = self._convolve((gradient * c)[::-1])[::-1]
        return product * x, gradient * convolved, product * b

    def _convolve(self, rows: Floats) -> Floats:
        """The causal convolution of rows, (tokens, hidden)."""
        own, *earlier = self._kernel.T[::-1]
        result: Floats = rows * own
        for distance, weights in enumerate(earlier, 1):
            result[distance:] += rows[:-distance] * weights
        return result


class Attention:
    """Causal attention of all heads. Queries and keys are normalized where there are norms, then rotated."""

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Floats],
        frequencies: Doubles | None,
        window: int | None,
    ) -> None:
        """Take the constants of a layer.

        Args:
            architecture: the model's.
            tensors: the layer's.
            frequencies: of RoPE, (rotated dimensions / 2,); None without.
            window: the tokens that a query attends to, up to its own; None for all.
        """
        a = architecture
        self.widths = (a.heads * a.head_dim, a.kv_width, a.kv_width)
        self._kv_heads, self._head_dim, self._window = a.kv_heads, a.head_dim, window
        self._query_norm = RmsNorm(tensors.get("attn_q_norm.weight"), a.rms_eps)
        self._key_norm = RmsNorm(tensors.get("attn_k_norm.weight"), a.rms_eps)
        self._frequencies, self._rotation_scale = frequencies, a.rope_attention_factor
        self._scale = np.float32(a.attention_scale or a.head_dim**-0.5)

    def forward(self, *parts: Floats) -> tuple[Floats, Backward]:
        queries = self._rotate(self._split(self._query_norm.forward(parts[0])), 1)
        keys = self._rotate(self._split(self._key_norm.forward(parts[1])), 1)
        values = self._split(parts[2])
        queries = queries.reshape(self._kv_heads, -1, *queries.shape[1:])
        context = np.concatenate([*map(self._attend, queries, keys, values)])
        return _merge(context), partial(self._backward, parts, queries, keys, values)

    def _backward(
        self, parts: Parts, queries: Floats, keys: Floats, values: Floats, gradient: Floats
    ) -> Parts:
        context = self._split(gradient).reshape(queries.shape)
        by_head = map(self._attend_backward, queries, keys, values, context)
        queries, keys, values = (np.stack(part) for part in zip(*by_head, strict=True))
        queries = queries.reshape(-1, *queries.shape[2:])  # (heads, tokens, head_dim)
        return (
            self._query_norm.backward(parts[0], _merge(self._rotate(queries, -1))),
            self._key_norm.backward(parts[1], _merge(self._rotate(keys, -1))),
            _merge(values),
        )

    def _split(self, rows: Floats) -> Floats:
        """Split rows by head: (tokens, heads * head_dim) to (heads, tokens, head_dim)."""
        parts = rows.reshape(len(rows), -1, self._head_dim)
        return np.ascontiguousarray(parts.swapaxes(0, 1))

    def _rotate(self, vectors: Floats, direction: int) -> Floats:
        """Apply RoPE, in transformers' order: halves are rotated, not pairs; with direction -1, back."""
        if self._frequencies is None:
            return vectors
        half = len(self._frequencies)
        angles = np.arange(vectors.shape[1])[:, None] * self._frequencies  # (tokens, half)
        cosine = (self._rotation_scale * np.cos(angles)).astype(np.float32)
        sine = (direction * self._rotation_scale * np.sin(angles)).astype(np.float32)
        first, second, rest = np.split(vectors, [half, 2 * half], -1)
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine, rest], -1)

    def _attend(self, queries: Floats, keys: Floats, values: Floats) -> Floats:
        """Outputs of the heads, (heads, tokens, head_dim), that share keys and values, (tokens, head_dim)."""
        result = np.empty_like(queries)
        for block, read in self._blocks(len(keys)):
            weights = self._probabilities(queries[:, block], keys[read])
            np.matmul(weights, values[read], out=result[:, block])
        return result

    def _attend_backward(
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


def _merge(vectors: Floats) -> Floats:
    """Invert Attention._split()."""
    return np.ascontiguousarray(vectors.swapaxes(0, 1)).reshape(vectors.shape[1], -1)


Mixer = Attention | FeedForward | ShortConvolution
