"""Codec for the scales and offsets (minimums) in blocks of ggml's scalar quantization types.

A type has one scale per block in float16, perhaps with an offset; or one code per group of weights, times a
float16 super-scale. Bit positions follow ggml-quants.c.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...stats.arrays import Floats
from .ggml import F16_MAX

Bytes = NDArray[np.uint8]

_E8M0_MAX = 254  # 255 is no number


@dataclass(frozen=True)
class ScaleCodec:
    """Position and format of the scales and offsets of a block."""

    # maps blocks, (..., block bytes), to scales and offsets, (..., groups) each
    read: Callable[[Bytes], tuple[Floats, Floats]]
    # replaces scales and offsets of blocks, in place, by the nearest that their super-scales allow
    write: Callable[[Bytes, Floats, Floats], None]
    # byte positions of the float16 factors of all scales and of all offsets in a block (ggml's `d`, and `m`
    # or `dmin`); the second, or both, may be missing
    super_scales: tuple[int, ...]

    def multiply_super(self, blocks: Bytes, factors: Floats) -> None:
        """Multiply the super-scales of `blocks` by `factors`, (..., super-scales), rounded to float16."""
        for index, at in enumerate(self.super_scales):
            _write_float16(blocks, at, _float16(blocks, at) * factors[..., index : index + 1])

    def write_super(self, blocks: Bytes, *values: Floats) -> None:
        """Replace the super-scales of `blocks` by values, (...,) each, rounded to float16."""
        for at, value in zip(self.super_scales, values, strict=True):
            _write_float16(blocks, at, value[..., None])


def _float16(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2").astype(np.float32)  # (..., 1)


def _write_float16(blocks: Bytes, at: int, values: Floats) -> None:
    """Write values, (..., 1), as float16."""
    limit = np.float32(F16_MAX)
    blocks[..., at : at + 2] = np.clip(values, -limit, limit).astype("<f2").view(np.uint8)


def _scale_codes(values: Floats, super_scale: Floats, lowest: int, highest: int) -> NDArray[np.int16]:
    """The codes, (..., groups), that times the super-scale, (..., 1), are nearest to `values`."""
    ratio = np.divide(values, super_scale, out=np.zeros_like(values), where=super_scale != 0)
    return np.clip(np.rint(ratio, out=ratio), lowest, highest).astype(np.int16)


def _without_offsets(scales: Floats) -> tuple[Floats, Floats]:
    return scales, np.zeros_like(scales)


def _read_scale(blocks: Bytes) -> tuple[Floats, Floats]:
    return _without_offsets(_float16(blocks, 0))


def _write_scale(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    _write_float16(blocks, 0, scales)


def _read_scale_and_offset(blocks: Bytes) -> tuple[Floats, Floats]:
    return _float16(blocks, 0), _float16(blocks, 2)


def _write_scale_and_offset(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    _write_float16(blocks, 0, scales)
    _write_float16(blocks, 2, offsets)


def _read_exponent(blocks: Bytes) -> tuple[Floats, Floats]:
    scales = np.ldexp(np.float32(0.5), blocks[..., :1].astype(np.int32) - 127)
    return _without_offsets(scales.astype(np.float32))


def _write_exponent(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    exponents = np.rint(np.log2(np.maximum(2 * scales, np.finfo(np.float32).tiny))) + 127
    blocks[..., :1] = np.clip(exponents, 0, _E8M0_MAX).astype(np.uint8)


def _read_q2_k(blocks: Bytes) -> tuple[Floats, Floats]:
    packed = blocks[..., :16]
    return _float16(blocks, 80) * (packed & 15), -_float16(blocks, 82) * (packed >> 4)


def _write_q2_k(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    s = _scale_codes(scales, _float16(blocks, 80), 0, 15)
    m = _scale_codes(-offsets, _float16(blocks, 82), 0, 15)
    blocks[..., :16] = s | m << 4


def _read_q3_k(blocks: Bytes) -> tuple[Floats, Floats]:
    low, high = blocks[..., 96:104], blocks[..., 104:108]
    low_bits = np.concatenate([low & 15, low >> 4], -1)  # (..., 16)
    high_bits = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], -1)
    return _without_offsets(_float16(blocks, 108) * ((low_bits | high_bits << 4).astype(np.int8) - 32))


def _write_q3_k(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    codes = _scale_codes(scales, _float16(blocks, 108), -32, 31) + 32
    blocks[..., 96:104] = codes[..., :8] & 15 | (codes[..., 8:] & 15) << 4
    high = codes.reshape(*codes.shape[:-1], 4, 4) >> 4 << np.arange(0, 8, 2)[:, None]
    blocks[..., 104:108] = high.sum(-2)


def _read_q4_k(blocks: Bytes) -> tuple[Floats, Floats]:
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scale = np.concatenate([first & 63, third & 15 | first >> 6 << 4], -1)  # (..., 8)
    minimum = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], -1)
    return _float16(blocks, 0) * scale, -_float16(blocks, 2) * minimum


def _write_q4_k(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    s = _scale_codes(scales, _float16(blocks, 0), 0, 63)
    m = _scale_codes(-offsets, _float16(blocks, 2), 0, 63)
    blocks[..., 4:8] = s[..., :4] | s[..., 4:] >> 4 << 6
    blocks[..., 8:12] = m[..., :4] | m[..., 4:] >> 4 << 6
    blocks[..., 12:16] = s[..., 4:] & 15 | (m[..., 4:] & 15) << 4


def _read_q6_k(blocks: Bytes) -> tuple[Floats, Floats]:
    return _without_offsets(_float16(blocks, 208) * np.ascontiguousarray(blocks[..., 192:208]).view(np.int8))


def _write_q6_k(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    codes = _scale_codes(scales, _float16(blocks, 208), -128, 127)
    blocks[..., 192:208] = codes.astype(np.int8).view(np.uint8)


def _read_iq4_xs(blocks: Bytes) -> tuple[Floats, Floats]:
    high = np.ascontiguousarray(blocks[..., 2:4]).view("<u2") >> np.arange(0, 16, 2) & 3  # (..., 8)
    low = np.repeat(blocks[..., 4:8], 2, -1) >> np.tile([0, 4], 4) & 15
    return _without_offsets(_float16(blocks, 0) * ((low | high << 4).astype(np.int8) - 32))


def _write_iq4_xs(blocks: Bytes, scales: Floats, offsets: Floats) -> None:
    codes = _scale_codes(scales, _float16(blocks, 0), -32, 31) + 32
    high = (codes.astype(np.uint16) >> 4 << np.arange(0, 16, 2)).sum(-1, keepdims=True)
    blocks[..., 2:4] = high.astype("<u2").view(np.uint8)
    blocks[..., 4:8] = codes[..., ::2] & 15 | (codes[..., 1::2] & 15) << 4


SCALE = ScaleCodec(_read_scale, _write_scale, (0,))
SCALE_AND_OFFSET = ScaleCodec(_read_scale_and_offset, _write_scale_and_offset, (0, 2))
EXPONENT = ScaleCodec(_read_exponent, _write_exponent, ())
Q2_K = ScaleCodec(_read_q2_k, _write_q2_k, (80, 82))
Q3_K = ScaleCodec(_read_q3_k, _write_q3_k, (108,))
Q4_K = ScaleCodec(_read_q4_k, _write_q4_k, (0, 2))  # also of Q5_K
Q6_K = ScaleCodec(_read_q6_k, _write_q6_k, (208,))
IQ4_XS = ScaleCodec(_read_iq4_xs, _write_iq4_xs, (0,))
