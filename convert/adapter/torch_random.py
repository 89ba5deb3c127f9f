"""PyTorch's seeded normal distribution, so that TinyLoRA's projections can be drawn again without PyTorch.

After ATen's `normal_fill` and `normal_distribution`: a Mersenne Twister feeding Box-Muller, in blocks of 16
from 24-bit uniforms when there are at least 16 numbers, else one by one from 53-bit uniforms.
"""

import math

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16


def torch_normal(seed: int, std: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What `torch.normal(0.0, std, shape, generator=…)`, seeded with `seed`, gives on a CPU, within 1e-6."""
    words = np.random.RandomState(seed % (1 << 32))  # MT19937 seeded as PyTorch seeds it
    count = math.prod(shape)
    values = _filled(words, count) if count >= _BLOCK else _serial(words, count)
    return (values * std).astype(np.float32).reshape(shape)


def _words(state: np.random.RandomState, count: int) -> NDArray[np.uint64]:
    return state.randint(0, 1 << 32, count, dtype=np.uint32).astype(np.uint64)


def _filled(state: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """Blocks of 16; a tail that is no whole block draws its last 16 numbers anew."""
    whole = count // _BLOCK * _BLOCK
    words = _words(state, count)
    values = np.empty(count)
    values[:whole] = _box_muller(words[:whole])
    if whole != count:
        values[-_BLOCK:] = _box_muller(_words(state, _BLOCK))
    return values


def _box_muller(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """In float32 as PyTorch does it: the rounding of theta shows where its cosine is near zero."""
    uniforms = (words & 0xFFFFFF).astype(np.float32) / np.float32(1 << 24)
    first, second = uniforms.reshape(-1, 2, _BLOCK // 2).swapaxes(0, 1)
    radius, theta = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()


def _serial(state: np.random.RandomState, count: int) -> NDArray[np.float64]:
    pairs = -(-count // 2)
    high, low = _words(state, 4 * pairs).reshape(-1, 2).T
    uniforms = (((high << np.uint64(32)) | low) & np.uint64((1 << 53) - 1)) / (1 << 53)
    theta, radius = 2 * np.pi * uniforms[0::2], np.sqrt(-2 * np.log1p(-uniforms[1::2]))
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1).ravel()[:count]
