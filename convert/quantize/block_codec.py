"""Blocks of the scalar ggml types taken apart into scales, offsets and codes, and put together again.

Where each code's bits lie is a table for each type, after ggml-quants.c. The codebook types (IQ1 to IQ3) code
several weights at once and are none of these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

Type = GGMLQuantizationType
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_HALF_MAX = 65504.0  # the largest finite 16-bit float
_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # doubled, as ggml keeps them


@dataclass(frozen=True)
class _Bits:
    """Some bits of every code of a block: the byte of each, how far up they are there, and in the code."""

    byte: NDArray[np.intp]  # (block,)
    shift: NDArray[np.uint8]  # (block,)
    count: int
    place: int


@dataclass(frozen=True)
class BlockLayout:
    """How a type keeps a block.

    Attributes:
        block: weights of a block.
        group: consecutive weights that share a scale and an offset.
        levels: what each code stands for, before scale and offset, (2**bits,).
        scales: from blocks (..., block bytes) to scales and offsets, (..., block / group) each.
        bits: where the codes lie.
        factors: where the 16-bit floats lie that all scales and all offsets of a block are proportional to;
            the second, or both, may be missing.
    """

    block: int
    group: int
    levels: Floats
    scales: Callable[[Bytes], tuple[Floats, Floats]]
    bits: tuple[_Bits, ...]
    factors: tuple[int, ...]

    def codes(self, blocks: Bytes) -> Bytes:
        """The codes, (..., block), of blocks, (..., block bytes)."""
        out = np.zeros((*blocks.shape[:-1], self.block), np.uint8)
        for part in self.bits:
            out |= (blocks[..., part.byte] >> part.shift & ((1 << part.count) - 1)) << part.place
        return out

    def parts(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """What scales and offsets contribute to the weights of blocks, (..., block) each."""
        scale, offset = (np.repeat(of, self.group, -1) for of in self.scales(blocks))
        return self.levels[self.codes(blocks)] * scale, offset

    def multiply(self, blocks: Bytes, by: Floats) -> None:
        """Multiply the factors of `blocks` by some numbers, (..., factors), as far as 16 bits tell."""
        for index, at in enumerate(self.factors):
            product = np.clip(_half(blocks, at) * by[..., index : index + 1], -_HALF_MAX, _HALF_MAX)
            blocks[..., at : at + 2] = product.astype("<f2").view(np.uint8)

    def snap(self, steps: Floats) -> None:
        """Move `steps`, in units of the scale, from the offset, to the nearest levels, in place."""
        if self.zero is None:
            first, levels, _ = _tables(self.levels.tobytes())
            halves = np.floor(steps * 2).astype(np.intp)
            halves -= first
            levels.take(halves, out=steps, mode="clip")
            return
        np.rint(steps, out=steps)
        np.maximum(steps, self.levels[0], out=steps)
        np.minimum(steps, self.levels[-1], out=steps)

    def coded(self, levels: Floats) -> Bytes:
        """The codes of levels."""
        if self.zero is None:
            _, _, codes = _tables(self.levels.tobytes())
            found: Bytes = codes[levels.astype(np.intp)]
            return found
        code: Bytes = (levels - self.levels[0]).astype(np.uint8)
        return code

    @property
    def zero(self) -> int | None:
        """The code of level 0 where levels are consecutive whole numbers in order; None elsewhere."""
        return _zero(self.levels.tobytes())

    def put(self, blocks: Bytes, codes: Bytes) -> None:
        """Replace the codes of `blocks` by `codes`, (..., block); scales and offsets stay."""
        for part in self.bits:
            mask = (1 << part.count) - 1
            moved = (codes >> part.place & mask) << part.shift
            # Each byte holds the codes of several weights: one weight of each at a time.
            for turn in _turns(part.byte.tobytes()):
                at = part.byte[turn]
                keep = ~(np.uint8(mask) << part.shift[turn])
                blocks[..., at] = blocks[..., at] & keep | moved[..., turn]


@cache
def _turns(byte: bytes) -> tuple[NDArray[np.intp], ...]:
    """Indices of codes, in sets that have no byte twice."""
    at = np.frombuffer(byte, np.intp)
    rank = np.array([np.count_nonzero(at[:i] == b) for i, b in enumerate(at)])
    return tuple(np.flatnonzero(rank == turn) for turn in range(rank.max() + 1))


@cache
def _zero(levels: bytes) -> int | None:
    values = np.frombuffer(levels, np.float32)
    return int(-values[0]) if (np.diff(values) == 1).all() else None


@cache
def _tables(levels: bytes) -> tuple[int, Floats, Bytes]:
    """What is nearest, for levels that are whole numbers and not consecutive, but not necessarily in order.

    Returns:
        The number of whole halves in a step up to which the least level is nearest; the nearest levels from
        that number on; and codes by level, negative ones from the end.
    """
    values = np.frombuffer(levels, np.float32)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    # What is halfway between two levels is a whole number of halves.
    halfway = (ordered[1:] + ordered[:-1]).astype(np.intp)
    first = int(halfway[0]) - 1
    places = np.searchsorted(halfway, np.arange(first, halfway[-1] + 1), side="right")
    codes = np.zeros(2 * int(np.abs(values).max()) + 1, np.uint8)
    codes[ordered[::-1].astype(np.intp)] = order[::-1]  # of codes for one level, the first
    return first, ordered[places], codes


def block_layout(type_: GGMLQuantizationType) -> BlockLayout | None:
    """How `type_` keeps its blocks; None of a type whose codes cannot be chosen one by one."""
    return _LAYOUTS.get(type_)


def _half(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2").astype(np.float32)  # (..., 1)


def _scale(at: int) -> Callable[[Bytes], tuple[Floats, Floats]]:
    def read(blocks: Bytes) -> tuple[Floats, Floats]:
        d = _half(blocks, at)
        return d, np.zeros_like(d)

    return read


def _scale_and_minimum(blocks: Bytes) -> tuple[Floats, Floats]:
    return _half(blocks, 0), _half(blocks, 2)


def _power_of_two(blocks: Bytes) -> tuple[Floats, Floats]:
    d: Floats = np.ldexp(np.float32(0.5), blocks[..., :1].astype(np.int32) - 127).astype(np.float32)
    return d, np.zeros_like(d)


def _q2_k(blocks: Bytes) -> tuple[Floats, Floats]:
    packed = blocks[..., :16]
    return _half(blocks, 80) * (packed & 15), -_half(blocks, 82) * (packed >> 4)


def _q3_k(blocks: Bytes) -> tuple[Floats, Floats]:
    low, high = blocks[..., 96:104], blocks[..., 104:108]
    four = np.concatenate([low & 15, low >> 4], -1)  # (..., 16)
    two = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], -1)
    d = _half(blocks, 108) * ((four | two << 4).astype(np.int8) - 32)
    return d, np.zeros_like(d)


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scale = np.concatenate([first & 63, third & 15 | first >> 6 << 4], -1)  # (..., 8)
    minimum = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], -1)
    return _half(blocks, 0) * scale, -_half(blocks, 2) * minimum


def _q6_k(blocks: Bytes) -> tuple[Floats, Floats]:
    d = _half(blocks, 208) * np.ascontiguousarray(blocks[..., 192:208]).view(np.int8)
    return d, np.zeros_like(d)


def _iq4_xs(blocks: Bytes) -> tuple[Floats, Floats]:
    high = np.ascontiguousarray(blocks[..., 2:4]).view("<u2") >> np.arange(0, 16, 2) & 3  # (..., 8)
    low = np.repeat(blocks[..., 4:8], 2, -1) >> np.tile([0, 4], 4) & 15
    d = _half(blocks, 0) * ((low | high << 4).astype(np.int8) - 32)
    return d, np.zeros_like(d)


def _bits(byte: Any, shift: Any, count: int, place: int = 0, *, block: int) -> _Bits:
    full = np.zeros(block, np.intp)
    return _Bits(full + byte, (full + shift).astype(np.uint8), count, place)


def _make() -> dict[GGMLQuantizationType, BlockLayout]:
    e = np.arange(32)

    def nibbles(at: int) -> _Bits:
        return _bits(at + e % 16, 4 * (e // 16), 4, block=32)

    def fifth(at: int) -> _Bits:
        return _bits(at + e // 8, e % 8, 1, 4, block=32)

    k = np.arange(256)
    half, quarter, line = k // 128, k % 128 // 32, k % 32
    pairs = 32 * (k // 64) + line, 4 * (k % 64 // 32)

    def levels(bits: int, zero: int = 0) -> Floats:
        return np.arange(1 << bits, dtype=np.float32) - zero

    def two(at: int) -> _Bits:
        return _bits(at + 32 * half + line, 2 * quarter, 2, block=256)

    nonlinear = np.array(_NONLINEAR, np.float32)
    signed = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.float32)
    return {
        Type.Q4_0: BlockLayout(32, 32, levels(4, 8), _scale(0), (nibbles(2),), (0,)),
        Type.Q4_1: BlockLayout(32, 32, levels(4), _scale_and_minimum, (nibbles(4),), (0, 2)),
        Type.Q5_0: BlockLayout(32, 32, levels(5, 16), _scale(0), (nibbles(6), fifth(2)), (0,)),
        Type.Q5_1: BlockLayout(32, 32, levels(5), _scale_and_minimum, (nibbles(8), fifth(4)), (0, 2)),
        Type.Q8_0: BlockLayout(32, 32, signed, _scale(0), (_bits(2 + e, 0, 8, block=32),), (0,)),
        Type.IQ4_NL: BlockLayout(32, 32, nonlinear, _scale(0), (nibbles(2),), (0,)),
        Type.MXFP4: BlockLayout(32, 32, np.array(_E2M1, np.float32), _power_of_two, (nibbles(1),), ()),
        Type.Q2_K: BlockLayout(256, 16, levels(2), _q2_k, (two(16),), (80, 82)),
        Type.Q3_K: BlockLayout(
            256, 16, levels(3, 4), _q3_k, (two(32), _bits(line, k // 32, 1, 2, block=256)), (108,)
        ),
        Type.Q4_K: BlockLayout(
            256, 32, levels(4), _k_scales, (_bits(16 + pairs[0], pairs[1], 4, block=256),), (0, 2)
        ),
        Type.Q5_K: BlockLayout(
            256,
            32,
            levels(5),
            _k_scales,
            (_bits(48 + pairs[0], pairs[1], 4, block=256), _bits(16 + line, k // 32, 1, 4, block=256)),
            (0, 2),
        ),
        Type.Q6_K: BlockLayout(
            256,
            16,
            levels(6, 32),
            _q6_k,
            (
                _bits(64 * half + line + 32 * (quarter % 2), 4 * (quarter // 2), 4, block=256),
                _bits(128 + 32 * half + line, 2 * quarter, 2, 4, block=256),
            ),
            (208,),
        ),
        Type.IQ4_XS: BlockLayout(
            256,
            32,
            nonlinear,
            _iq4_xs,
            (_bits(8 + 16 * (k // 32) + k % 16, 4 * (k % 32 // 16), 4, block=256),),
            (0,),
        ),
    }


_LAYOUTS = _make()
assert all(GGML_QUANT_SIZES[t][0] == kept.block for t, kept in _LAYOUTS.items())
