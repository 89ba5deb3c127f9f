"""RoPE of a layer."""

import numpy as np

from ...stats.arrays import Doubles, Floats
from .weights import DecoderWeights


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
