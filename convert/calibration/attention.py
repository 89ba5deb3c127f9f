"""Attention between its matrices: from the rows of queries, keys and values to the outputs of all heads."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ...stats.arrays import Floats
from ..source.architecture import Architecture
from .causal_attention import CausalAttention
from .projection import Backward, Parts
from .rms_norm import read_norm
from .rotation import Rotation


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
