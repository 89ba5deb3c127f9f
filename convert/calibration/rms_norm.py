"""RMSNorm of rows, or of the heads in them."""

from collections.abc import Mapping

import numpy as np

from ...stats.arrays import Floats


class NoNorm:
    """The identity, in place of a norm that a layer does not have."""

    def forward(self, rows: Floats) -> Floats:
        """The rows."""
        return rows

    def backward(self, rows: Floats, gradient: Floats) -> Floats:
        """The gradient."""
        return gradient


NO_NORM = NoNorm()


class RmsNorm:
    """RMSNorm of vectors as wide as its weight, (width,); a row may hold several of them."""

    def __init__(self, weight: Floats, eps: float) -> None:
        self._weight, self._eps = weight, eps

    def forward(self, rows: Floats) -> Floats:
        """The normalized rows, (tokens, n * width)."""
        vectors = rows.reshape(-1, len(self._weight))
        scaled: Floats = vectors * self._inverse_rms(vectors)
        scaled *= self._weight
        return scaled.reshape(rows.shape)

    def backward(self, rows: Floats, gradient: Floats) -> Floats:
        """The gradient of `rows` from that of what forward() makes of them."""
        vectors = rows.reshape(-1, len(self._weight))
        weighted = gradient.reshape(vectors.shape) * self._weight
        scale = self._inverse_rms(vectors)
        along = np.einsum("tc,tc->t", vectors, weighted)[:, None] * scale**2
        result: Floats = scale * (weighted - vectors * (along / np.float32(vectors.shape[1])))
        return result.reshape(rows.shape)

    def _inverse_rms(self, vectors: Floats) -> Floats:
        squares = np.einsum("tc,tc->t", vectors, vectors).astype(np.float64)[:, None]
        inverse: Floats = (1 / np.sqrt(squares / vectors.shape[1] + self._eps)).astype(np.float32)
        return inverse  # (vectors, 1)


def read_norm(tensors: Mapping[str, Floats], name: str, eps: float) -> RmsNorm | NoNorm:
    """The norm of a layer with this name, from the layer's tensors."""
    weight = tensors.get(f"{name}.weight")
    return NO_NORM if weight is None else RmsNorm(weight, eps)
