"""Codec for blocks of ggml's scalar quantization types: scales, offsets (minimums) and codes.

A weight is `levels[code] * scale + offset`. A block has a scale in float16, perhaps with an offset; or each
group of its weights has codes for them, times float16 super-scales. Bit positions follow ggml-quants.c. The
codebook types (IQ1 to IQ3) encode several weights with one code and are not covered.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import IQ4_NL, MXFP4
from numpy.typing import NDArray

from ...stats import Floats
from .ggml import F16_MAX

Bytes = NDArray[np.uint8]

_IQ4_NL_LEVELS = np.array(IQ4_NL.kvalues, np.float32)
_E2M1_LEVELS = np.array(MXFP4.kvalues, np.float32)  # doubled, as in ggml
_INT8_LEVELS = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)


@dataclass(frozen=True)
class _BitField:
    """Position of some bits of every code in a block."""

    byte: NDArray[np.intp]  # index of the byte that holds the bits, (codes,)
    shift: NDArray[np.uint8]  # position of the bits in that byte, (codes,)
    width: int  # number of bits
    code_shift: int  # position of the bits in the code

    @cached_property
    def passes(self) -> tuple[NDArray[np.intp], ...]:
        """Indices of the codes, split into sets that share no byte."""
        rank = np.array([np.count_nonzero(self.byte[:i] == byte) for i, byte in enumerate(self.byte)])
        return tuple(np.flatnonzero(rank == number) for number in range(rank.max() + 1))


_Fields = tuple[_BitField, ...]  # positions of all bits of some codes


def _read_codes(blocks: Bytes, fields: _Fields) -> Bytes:
    """The codes, (..., codes), in blocks, (..., block bytes)."""
    codes = np.zeros((*blocks.shape[:-1], len(fields[0].byte)), np.uint8)
    for field in fields:
        bits = blocks[..., field.byte] >> field.shift & ((1 << field.width) - 1)
        codes |= bits << field.code_shift
    return codes


def _write_codes(blocks: Bytes, fields: _Fields, codes: Bytes) -> None:
    """Replace the codes of `blocks` by `codes`, (..., codes); all other bits stay."""
    for field in fields:
        mask = (1 << field.width) - 1
        bits = (codes >> field.code_shift & mask) << field.shift
        # A byte holds bits of several codes, and NumPy assigns to a repeated index only once.
        for chosen in field.passes:
            byte = field.byte[chosen]
            keep = ~(np.uint8(mask) << field.shift[chosen])
            blocks[..., byte] = blocks[..., byte] & keep | bits[..., chosen]


def _float16(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2").astype(np.float32)  # (..., 1)


def _write_float16(blocks: Bytes, at: int, values: Floats) -> None:
    limit = np.float32(F16_MAX)
    blocks[..., at : at + 2] = np.clip(values, -limit, limit).astype("<f2").view(np.uint8)


@dataclass(frozen=True)
class BlockLayout:
    """Memory layout of the blocks of one type."""

    group_size: int  # consecutive weights that share a scale and an offset
    levels: Floats  # value of each code before scale and offset, (2**bits,)
    codes: _Fields  # positions of the weights' codes
    # byte positions of the float16 factors of all scales and of all offsets in a block (ggml's `d`, and `m`
    # or `dmin`); the second, or both, may be missing
    super_scales: tuple[int, ...]
    scale_codes: _Fields = ()  # positions of the groups' codes of scales; none where a block is one group
    offset_codes: _Fields = ()  # and of offsets, which are negative
    scale_levels: Floats | None = None  # value of each of these codes before the super-scale

    @property
    def block_size(self) -> int:
        """Weights per block."""
        return len(self.codes[0].byte)

    @cached_property
    def uniform(self) -> bool:
        """Whether the levels are consecutive integers in ascending order."""
        return bool((np.diff(self.levels) == 1).all())

    @property
    def has_offsets(self) -> bool:
        """Whether levels start at 0, so that each group has an offset."""
        return self.uniform and self.levels[0] == 0.0

    def unpack_codes(self, blocks: Bytes) -> Bytes:
        """The codes, (..., block_size), of blocks, (..., block bytes)."""
        return _read_codes(blocks, self.codes)

    def pack_codes(self, blocks: Bytes, codes: Bytes) -> None:
        """Replace the codes of `blocks` by `codes`, (..., block_size); scales and offsets stay."""
        _write_codes(blocks, self.codes, codes)

    def read_scales(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """The scales and offsets of blocks, (..., groups) each."""
        if not self.super_scales:  # MXFP4 has an exponent
            scales = np.ldexp(np.float32(0.5), blocks[..., :1].astype(np.int32) - 127).astype(np.float32)
        else:
            scales, *offsets = (_float16(blocks, at) for at in self.super_scales)
            if self.scale_levels is not None:
                scales = scales * self.scale_levels[_read_codes(blocks, self.scale_codes)]
                offsets = [
                    -one * self.scale_levels[_read_codes(blocks, self.offset_codes)] for one in offsets
                ]
            if offsets:
                return scales, offsets[0]
        return scales, np.zeros_like(scales)

    def write_scales(self, blocks: Bytes, scales: Floats, offsets: Floats) -> None:
        """Replace scales and offsets of blocks, in place, by the nearest that their super-scales allow.

        MXFP4 has no super-scales, and is left as it is.
        """
        if self.scale_levels is None:
            for at, values in zip(self.super_scales, (scales, offsets), strict=False):
                _write_float16(blocks, at, values)
        else:
            coded = ((self.scale_codes, scales), (self.offset_codes, -offsets))
            for at, (fields, values) in zip(self.super_scales, coded, strict=False):
                _write_codes(blocks, fields, self._nearest_codes(values, _float16(blocks, at)))

    def _nearest_codes(self, values: Floats, super_scale: Floats) -> Bytes:
        """The codes, (..., groups), that times the super-scale, (..., 1), are nearest to `values`."""
        levels = self.scale_levels
        assert levels is not None, "scales are no codes"
        ratio = np.divide(values, super_scale, out=np.zeros_like(values), where=super_scale != 0)
        nearest = np.clip(np.rint(ratio, out=ratio), levels.min(), levels.max())
        codes: Bytes = (nearest - levels[0]).astype(np.int16).astype(np.uint8)
        return codes

    def multiply_super(self, blocks: Bytes, factors: Floats) -> None:
        """Multiply the super-scales of `blocks` by `factors`, (..., super-scales), rounded to float16."""
        for index, at in enumerate(self.super_scales):
            _write_float16(blocks, at, _float16(blocks, at) * factors[..., index : index + 1])

    def write_super(self, blocks: Bytes, *values: Floats) -> None:
        """Replace the super-scales of `blocks` by values, (...,) each, rounded to float16."""
        for at, value in zip(self.super_scales, values, strict=True):
            _write_float16(blocks, at, value[..., None])

    def dequantized_terms(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """The scaled levels and the offsets of blocks, (..., block_size) each; weights are their sum."""
        scale, offset = (np.repeat(values, self.group_size, -1) for values in self.read_scales(blocks))
        return self.levels[self.unpack_codes(blocks)] * scale, offset

    def round_to_levels(self, values: Floats) -> None:
        """Replace values, in units of the scale and without the offset, by the nearest levels, in place."""
        if self.uniform:
            np.rint(values, out=values)
            np.maximum(values, self.levels[0], out=values)
            np.minimum(values, self.levels[-1], out=values)
            return
        first, levels, _ = self._nearest_level_tables
        half_steps = np.floor(values * 2).astype(np.intp)
        half_steps -= first
        levels.take(half_steps, out=values, mode="clip")

    def encode_levels(self, levels: Floats) -> Bytes:
        """The codes of levels."""
        if self.uniform:
            uniform: Bytes = (levels - self.levels[0]).astype(np.uint8)
            return uniform
        _, _, codes = self._nearest_level_tables
        return codes[levels.astype(np.intp)]

    @cached_property
    def _nearest_level_tables(self) -> tuple[int, Floats, Bytes]:
        """Tables for levels that are integers but not consecutive, in any order."""
        order = np.argsort(self.levels, kind="stable")
        ascending = self.levels[order]
        midpoints = (ascending[1:] + ascending[:-1]).astype(np.intp)  # in half steps, hence whole numbers
        first = int(midpoints[0]) - 1
        nearest = np.searchsorted(midpoints, np.arange(first, midpoints[-1] + 1), side="right")
        codes = np.zeros(2 * int(np.abs(self.levels).max()) + 1, np.uint8)
        codes[ascending[::-1].astype(np.intp)] = order[::-1]  # the first of several codes for one level
        return first, ascending[nearest], codes


def block_layout(type_: GGMLQuantizationType) -> BlockLayout | None:
    """The layout of a type's blocks; None for a type whose codes cannot be chosen one by one."""
    return _LAYOUTS.get(type_.name)


def _field(byte: Any, shift: Any, width: int, code_shift: int = 0) -> _BitField:
    at, shifts = np.broadcast_arrays(np.asarray(byte, np.intp), np.asarray(shift, np.uint8))
    return _BitField(at, shifts, width, code_shift)


def _integer_levels(bits: int, zero_code: int = 0) -> Floats:
    return np.arange(1 << bits, dtype=np.float32) - zero_code


def _block_layouts() -> dict[str, BlockLayout]:
    k = np.arange(32)

    def nibbles(at: int) -> _BitField:
        return _field(at + k % 16, 4 * (k // 16), 4)

    def fifth_bits(at: int) -> _BitField:
        return _field(at + k // 8, k % 8, 1, 4)

    levels = _integer_levels
    return {
        "Q4_0": BlockLayout(32, levels(4, 8), (nibbles(2),), (0,)),
        "Q4_1": BlockLayout(32, levels(4), (nibbles(4),), (0, 2)),
        "Q5_0": BlockLayout(32, levels(5, 16), (nibbles(6), fifth_bits(2)), (0,)),
        "Q5_1": BlockLayout(32, levels(5), (nibbles(8), fifth_bits(4)), (0, 2)),
        "Q8_0": BlockLayout(32, _INT8_LEVELS, (_field(2 + k, 0, 8),), (0,)),
        "IQ4_NL": BlockLayout(32, _IQ4_NL_LEVELS, (nibbles(2),), (0,)),
        "MXFP4": BlockLayout(32, _E2M1_LEVELS, (nibbles(1),), ()),
    }


def _super_block_layouts() -> dict[str, BlockLayout]:
    k, eight, sixteen = np.arange(256), np.arange(8), np.arange(16)
    half, quarter, lane = k // 128, k % 128 // 32, k % 32

    def nibbles(at: int) -> _BitField:
        return _field(at + 32 * (k // 64) + lane, 4 * (k % 64 // 32), 4)

    def pairs(at: int, code_shift: int = 0) -> _BitField:
        return _field(at + 32 * half + lane, 2 * quarter, 2, code_shift)

    def high_bits(at: int, code_shift: int) -> _BitField:
        return _field(at + lane, k // 32, 1, code_shift)

    def q4_k_scales(at: int, shift: int) -> _Fields:
        """Six bits of each scale, or offset: the last four groups' are in two parts."""
        first = eight < 4
        low = _field(np.where(first, at + eight, 8 + eight), np.where(first, 0, shift), 4)
        return low, _field(at + eight % 4, np.where(first, 4, 6), 2, 4)

    q2_k_scales = (_field(sixteen, 0, 4),), (_field(sixteen, 4, 4),)
    q3_k_scales = (
        _field(96 + sixteen % 8, 4 * (sixteen // 8), 4),
        _field(104 + sixteen % 4, 2 * (sixteen // 4), 2, 4),
    )
    q4_k = (0, 2), q4_k_scales(4, 0), q4_k_scales(8, 4), _integer_levels(6)  # also of Q5_K
    iq4_xs_scales = _field(4 + eight // 2, 4 * (eight % 2), 4), _field(2 + eight // 4, 2 * (eight % 4), 2, 4)
    q6_k_nibbles = _field(64 * half + lane + 32 * (quarter % 2), 4 * (quarter // 2), 4)
    iq4_xs_nibbles = _field(8 + 16 * (k // 32) + k % 16, 4 * (k % 32 // 16), 4)
    levels, signed = _integer_levels, _integer_levels(6, 32)
    return {
        "Q2_K": BlockLayout(16, levels(2), (pairs(16),), (80, 82), *q2_k_scales, levels(4)),
        "Q3_K": BlockLayout(
            16, levels(3, 4), (pairs(32), high_bits(0, 2)), (108,), q3_k_scales, scale_levels=signed
        ),
        "Q4_K": BlockLayout(32, levels(4), (nibbles(16),), *q4_k),
        "Q5_K": BlockLayout(32, levels(5), (nibbles(48), high_bits(16, 4)), *q4_k),
        "Q6_K": BlockLayout(
            16,
            levels(6, 32),
            (q6_k_nibbles, pairs(128, 4)),
            (208,),
            (_field(192 + sixteen, 0, 8),),
            scale_levels=_INT8_LEVELS,
        ),
        "IQ4_XS": BlockLayout(
            32, _IQ4_NL_LEVELS, (iq4_xs_nibbles,), (0,), iq4_xs_scales, scale_levels=signed
        ),
    }


_LAYOUTS = _block_layouts() | _super_block_layouts()
assert all(
    GGML_QUANT_SIZES[GGMLQuantizationType[name]][0] == layout.block_size for name, layout in _LAYOUTS.items()
)
