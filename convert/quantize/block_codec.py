"""Codec for blocks of ggml's scalar quantization types: scales, offsets (minimums) and codes.

A weight is `levels[code] * scale + offset`. Bit positions follow ggml-quants.c. The codebook types (IQ1 to
IQ3) encode several weights with one code and are not covered.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import IQ4_NL, MXFP4
from numpy.typing import NDArray

from ...stats.arrays import Floats
from . import scale_codec as sc
from .scale_codec import Bytes, ScaleCodec

_IQ4_NL_LEVELS = np.array(IQ4_NL.kvalues, np.float32)
_E2M1_LEVELS = np.array(MXFP4.kvalues, np.float32)  # doubled, as in ggml


@dataclass(frozen=True)
class _BitField:
    """Position of some bits of every code in a block."""

    byte: NDArray[np.intp]  # index of the byte that holds the bits, (block_size,)
    shift: NDArray[np.uint8]  # position of the bits in that byte, (block_size,)
    width: int  # number of bits
    code_shift: int  # position of the bits in the code

    @cached_property
    def passes(self) -> tuple[NDArray[np.intp], ...]:
        """Indices of the codes, split into sets that share no byte."""
        rank = np.array([np.count_nonzero(self.byte[:i] == byte) for i, byte in enumerate(self.byte)])
        return tuple(np.flatnonzero(rank == number) for number in range(rank.max() + 1))


@dataclass(frozen=True)
class BlockLayout:
    """Memory layout of the blocks of one type."""

    block_size: int  # weights per block
    group_size: int  # consecutive weights that share a scale and an offset
    levels: Floats  # value of each code before scale and offset, (2**bits,)
    scales: ScaleCodec  # codec of the scales and offsets
    bit_fields: tuple[_BitField, ...]  # positions of the codes' bits

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
        codes = np.zeros((*blocks.shape[:-1], self.block_size), np.uint8)
        for field in self.bit_fields:
            bits = blocks[..., field.byte] >> field.shift & ((1 << field.width) - 1)
            codes |= bits << field.code_shift
        return codes

    def pack_codes(self, blocks: Bytes, codes: Bytes) -> None:
        """Replace the codes of `blocks` by `codes`, (..., block_size); scales and offsets stay."""
        for field in self.bit_fields:
            mask = (1 << field.width) - 1
            bits = (codes >> field.code_shift & mask) << field.shift
            # A byte holds bits of several codes, and NumPy assigns to a repeated index only once.
            for chosen in field.passes:
                byte = field.byte[chosen]
                keep = ~(np.uint8(mask) << field.shift[chosen])
                blocks[..., byte] = blocks[..., byte] & keep | bits[..., chosen]

    def dequantized_terms(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """The scaled levels and the offsets of blocks, (..., block_size) each; weights are their sum."""
        scale, offset = (np.repeat(values, self.group_size, -1) for values in self.scales.read(blocks))
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


def _bit_field(block_size: int, byte: Any, shift: Any, width: int, code_shift: int = 0) -> _BitField:
    full = np.zeros(block_size, np.intp)
    return _BitField(full + byte, (full + shift).astype(np.uint8), width, code_shift)


def _integer_levels(bits: int, zero_code: int = 0) -> Floats:
    return np.arange(1 << bits, dtype=np.float32) - zero_code


def _block_layouts() -> dict[str, BlockLayout]:
    """The types with blocks of 32 weights."""
    k = np.arange(32)

    def nibbles(at: int) -> _BitField:
        return _bit_field(32, at + k % 16, 4 * (k // 16), 4)

    def fifth_bits(at: int) -> _BitField:
        return _bit_field(32, at + k // 8, k % 8, 1, 4)

    int8 = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    levels = _integer_levels
    return {
        "Q4_0": BlockLayout(32, 32, levels(4, 8), sc.SCALE, (nibbles(2),)),
        "Q4_1": BlockLayout(32, 32, levels(4), sc.SCALE_AND_OFFSET, (nibbles(4),)),
        "Q5_0": BlockLayout(32, 32, levels(5, 16), sc.SCALE, (nibbles(6), fifth_bits(2))),
        "Q5_1": BlockLayout(32, 32, levels(5), sc.SCALE_AND_OFFSET, (nibbles(8), fifth_bits(4))),
        "Q8_0": BlockLayout(32, 32, int8, sc.SCALE, (_bit_field(32, 2 + k, 0, 8),)),
        "IQ4_NL": BlockLayout(32, 32, _IQ4_NL_LEVELS, sc.SCALE, (nibbles(2),)),
        "MXFP4": BlockLayout(32, 32, _E2M1_LEVELS, sc.EXPONENT, (nibbles(1),)),
    }


def _super_block_layouts() -> dict[str, BlockLayout]:
    """The types with super-blocks of 256 weights."""
    k = np.arange(256)
    half, quarter, lane = k // 128, k % 128 // 32, k % 32

    def nibbles(at: int) -> _BitField:
        return _bit_field(256, at + 32 * (k // 64) + lane, 4 * (k % 64 // 32), 4)

    def pairs(at: int, code_shift: int = 0) -> _BitField:
        return _bit_field(256, at + 32 * half + lane, 2 * quarter, 2, code_shift)

    def high_bits(at: int, code_shift: int) -> _BitField:
        return _bit_field(256, at + lane, k // 32, 1, code_shift)

    q6_k_nibbles = _bit_field(256, 64 * half + lane + 32 * (quarter % 2), 4 * (quarter // 2), 4)
    iq4_xs_nibbles = _bit_field(256, 8 + 16 * (k // 32) + k % 16, 4 * (k % 32 // 16), 4)
    levels = _integer_levels
    return {
        "Q2_K": BlockLayout(256, 16, levels(2), sc.Q2_K, (pairs(16),)),
        "Q3_K": BlockLayout(256, 16, levels(3, 4), sc.Q3_K, (pairs(32), high_bits(0, 2))),
        "Q4_K": BlockLayout(256, 32, levels(4), sc.Q4_K, (nibbles(16),)),
        "Q5_K": BlockLayout(256, 32, levels(5), sc.Q4_K, (nibbles(48), high_bits(16, 4))),
        "Q6_K": BlockLayout(256, 16, levels(6, 32), sc.Q6_K, (q6_k_nibbles, pairs(128, 4))),
        "IQ4_XS": BlockLayout(256, 32, _IQ4_NL_LEVELS, sc.IQ4_XS, (iq4_xs_nibbles,)),
    }


_LAYOUTS = _block_layouts() | _super_block_layouts()
assert all(
    GGML_QUANT_SIZES[GGMLQuantizationType[name]][0] == layout.block_size for name, layout in _LAYOUTS.items()
)
