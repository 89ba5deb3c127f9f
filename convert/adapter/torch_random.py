"""PyTorch's seeded normal distribution in NumPy, to redraw TinyLoRA's projections without PyTorch.

It follows ATen's `normal_fill` and `normal_distribution`: a Mersenne Twister and Box-Muller, in blocks of 16
with 24-bit uniforms for at least 16 numbers, else one by one with 53-bit uniforms.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Doubles, Floats

_BLOCK = 16


def torch_normal(seed: int, std: float, shape: tuple[int, ...]) -> Floats:
    """The result of `torch.normal(0.0, std, shape, generator=…)` seeded with `seed` on a CPU, within 1e-6."""
    state = np.random.RandomState(seed % (1 << 32))  # MT19937 seeded like PyTorch's
    count = math.prod(shape)
    values = _normal_fill(state, count) if count >= _BLOCK else _normal_serial(state, count)
    return (values * std).astype(np.float32).reshape(shape)


def _random_words(state: np.random.RandomState, count: int) -> NDArray[np.uint64]:
    return state.randint(0, 1 << 32, count, dtype=np.uint32).astype(np.uint64)


def _normal_fill(state: np.random.RandomState, count: int) -> Doubles:
    """Blocks of 16; with an incomplete last block, the last 16 numbers are drawn again."""
    whole = count // _BLOCK * _BLOCK
    words = _random_words(state, count)
    values = np.empty(count)
    values[:whole] = _box_muller(words[:whole])
    if whole != count:
        values[-_BLOCK:] = _box_muller(_random_words(state, _BLOCK))
    return values


def _box_muller(words: NDArray[np.uint64]) -> Floats:
    """In float32 like PyTorch: the rounding of theta matters where its cosine is near zero."""
    uniforms = (words & 0xFFFFFF).astype(np.float32) / np.float32(1 << 24)
    first, second = uniforms.reshape(-1, 2, _BLOCK // 2).swapaxes(0, 1)
    radius, theta = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()


def _normal_serial(state: np.random.RandomState, count: int) -> Doubles:
    pairs = -(-count // 2)
    high, low = _random_words(state, 4 * pairs).reshape(-1, 2).T
    uniforms = (((high << np.uint64(32)) | low) & np.uint64((1 << 53) - 1)) / (1 << 53)
    theta, radius = 2 * np.pi * uniforms[0::2], np.sqrt(-2 * np.log1p(-uniforms[1::2]))
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()[:count]
