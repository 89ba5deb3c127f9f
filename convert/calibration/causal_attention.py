"""Causal attention of the query heads that share a key-value head."""

from collections.abc import Iterator

import numpy as np

from ...stats.arrays import Floats

_QUERIES = 128  # of a sequence, for which attention is computed at once


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
