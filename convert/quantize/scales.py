"""Fast search for the scales and offsets of blocks whose codes GPTQ then chooses.

ggml's own search takes most of a conversion's time: it tries up to 37 scales per group of weights and rounds
the weights for each. GPTQ discards those codes. This search tries a few scales for all groups at once and
solves least squares for the scale and the offset of the resulting codes. Types that ggml searches quickly are
left to ggml.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from .block_codec import BlockLayout, Bytes, Floats, block_layout
from .ggml import F16_MAX

_CHUNK_WEIGHTS = 1 << 16  # all arrays of a chunk fit into the processor's cache
_EXTRA_LEVELS = (-0.8, -0.4, 0.0, 0.4, 0.8)  # with an offset: a group's range spans `top` plus these levels
_LEVEL_SHIFTS = (-12, 0, 12, 24)  # without: a group's extreme takes the lowest level, -127, plus these
_TINY = np.float32(1e-30)
_DEGENERATE = np.float32(1e-5)  # relative to the levels' energy: a variance below it is rounding error


def fit_scales(rows: Floats, type_: GGMLQuantizationType, importance: Floats) -> Bytes | None:
    """Fit the scales and offsets of rows; the codes are left for GPTQ to choose.

    Args:
        rows: weights to quantize, (n, columns).
        type_: the type to quantize to.
        importance: weight of each column's error, (columns,).

    Returns:
        Blocks with scales and offsets, (n, row bytes); None for a type that ggml searches as quickly.
    """
    pack, layout = _PACKERS.get(type_.name), block_layout(type_)
    if pack is None or layout is None:
        return None
    step = max(1, _CHUNK_WEIGHTS // rows.shape[1])
    shape = (len(rows), rows.shape[1] // layout.block_size, GGML_QUANT_SIZES[type_][1])
    blocks = np.zeros(shape, np.uint8)
    for start in range(0, len(rows), step):
        chunk = blocks[start : start + step]
        for at, data in pack(*_fit(rows[start : start + step], layout, importance)):
            chunk[..., at : at + data.shape[1]] = data.reshape(*chunk.shape[:2], -1)
    return blocks.reshape(len(rows), -1)


def _fit(rows: Floats, layout: BlockLayout, importance: Floats) -> list[Floats]:
    """Scales and, for types with offsets, offsets and mean levels, (blocks, groups per block) each."""
    x = np.ascontiguousarray(rows.reshape(-1, layout.group_size).T)  # (group_size, groups)
    w = np.ascontiguousarray(np.broadcast_to(importance, rows.shape).reshape(-1, layout.group_size).T)
    fit = _fit_with_offset(x, w, len(layout.levels) - 1) if layout.has_offsets else _fit_scale(x, w, layout)
    return [values.reshape(-1, layout.block_size // layout.group_size) for values in fit]


def _fit_with_offset(x: Floats, w: Floats, top: int) -> tuple[Floats, ...]:
    """The scale, the offset, at most 0, and the mean level of each group with levels 0 to `top`."""
    low, high = np.minimum(x.min(0), 0), x.max(0)
    span = np.maximum(high - low, _TINY)
    sum_w, sum_x = w.sum(0), (w * x).sum(0)
    best = _BestFit(x.shape[1])
    for extra in _EXTRA_LEVELS:
        inverse_scale = (top + np.float32(extra)) / span
        levels = (x - low) * inverse_scale  # (group_size, groups)
        np.clip(np.rint(levels, out=levels), 0, top, out=levels)
        wl = w * levels
        sum_l, sum_ll, sum_xl = wl.sum(0), (wl * levels).sum(0), (wl * x).sum(0)
        determinant = sum_w * sum_ll - sum_l * sum_l
        scale_alone = sum_xl / np.maximum(sum_ll, _TINY)  # without an offset
        scale = (sum_w * sum_xl - sum_x * sum_l) / np.maximum(determinant, _TINY)
        offset = (sum_x - scale * sum_l) / np.maximum(sum_w, _TINY)
        # Where all levels are equal, scale and offset are undetermined; and the offset must not be above 0.
        valid = (determinant > _DEGENERATE * sum_w * sum_ll) & (offset < 0)
        scale, offset = np.where(valid, scale, scale_alone), np.where(valid, offset, 0)
        # The part of the squared error that depends on the levels, negated.
        gain = scale * (2 * sum_xl - scale * sum_ll) + offset * (
            2 * sum_x - 2 * scale * sum_l - offset * sum_w
        )
        best.update(gain, np.maximum(scale, 0), offset, sum_l / np.maximum(sum_w, _TINY))
    return best.parameters


def _fit_scale(x: Floats, w: Floats, layout: BlockLayout) -> tuple[Floats, ...]:
    """The scale of each group, which may be negative."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]
    extreme = np.where(extreme == 0, _TINY, extreme)
    best = _BestFit(x.shape[1])
    for shift in _LEVEL_SHIFTS:
        levels = x * ((layout.levels[0] + np.float32(shift)) / extreme)
        layout.round_to_levels(levels)
        wl = w * levels
        sum_ll, sum_xl = (wl * levels).sum(0), (wl * x).sum(0)
        scale = sum_xl / np.maximum(sum_ll, _TINY)
        best.update(scale * sum_xl, scale)
    return best.parameters


class _BestFit:
    """The parameters with the largest gain so far, for each group."""

    def __init__(self, groups: int) -> None:
        self.gain = np.full(groups, -np.inf, np.float32)
        self.parameters: tuple[Floats, ...] = ()

    def update(self, gain: NDArray[Any], *parameters: NDArray[Any]) -> None:  # float32, which stubs may widen
        self.parameters = self.parameters or tuple(map(np.zeros_like, parameters))
        better = gain > self.gain
        for best, new in zip((self.gain, *self.parameters), (gain, *parameters), strict=True):
            np.copyto(best, new, where=better)


_Parts = tuple[tuple[int, Bytes], ...]  # byte positions, and the bytes there, (blocks, bytes)
_Packer = Callable[..., _Parts]  # takes the parameters that _fit() returns


def _float16_bytes(*values: Floats) -> Bytes:
    """Values, (blocks,) each, as float16 side by side, (blocks, 2 * values)."""
    limit = np.float32(F16_MAX)
    return np.stack([np.clip(value, -limit, limit) for value in values], -1).astype("<f2").view(np.uint8)


def _quantized(values: Floats, top: int) -> tuple[Floats, Bytes]:
    """Non-negative values as a super-scale per block, (blocks,), and codes up to `top`, (blocks, groups)."""
    d = (values.max(1) / top).astype(np.float16).astype(np.float32)
    codes = np.rint(np.divide(values, d[:, None], out=np.zeros_like(values), where=d[:, None] > 0))
    return d, np.minimum(codes, top).astype(np.uint8)


def _quantized_with_minimums(
    scale: Floats, offset: Floats, level: Floats, top: int
) -> tuple[Floats, Bytes, Floats, Bytes]:
    """Quantized scales and minimums; minimums correct the shift of the mean caused by rounding a scale."""
    d, codes = _quantized(scale, top)
    return d, codes, *_quantized(np.maximum(0, (d[:, None] * codes - scale) * level - offset), top)


def _pack_float16(*parameters: Floats) -> _Parts:
    scale_and_offset = (values[:, 0] for values in parameters[:2])
    return ((0, _float16_bytes(*scale_and_offset)),)


def _pack_q4_k(scale: Floats, offset: Floats, level: Floats) -> _Parts:
    d, s, dmin, m = _quantized_with_minimums(scale, offset, level, 63)
    first, second = s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6
    packed = np.concatenate([first, second, s[:, 4:] & 15 | m[:, 4:] << 4], 1)
    return (0, _float16_bytes(d, dmin)), (4, packed.astype(np.uint8))


def _pack_q2_k(scale: Floats, offset: Floats, level: Floats) -> _Parts:
    d, s, dmin, m = _quantized_with_minimums(scale, offset, level, 15)
    return (0, (s | m << 4).astype(np.uint8)), (80, _float16_bytes(d, dmin))


def _pack_iq4_xs(scale: Floats) -> _Parts:
    extreme = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)[:, 0]
    d = (extreme / -32).astype(np.float16).astype(np.float32)[:, None]
    codes = np.rint(np.divide(scale, d, out=np.zeros_like(scale), where=d != 0))
    s = (np.clip(codes, -32, 31) + 32).astype(np.uint8)
    low = (s[:, ::2] & 15 | s[:, 1::2] << 4).astype(np.uint8)
    high = (s.astype(np.uint16) >> 4 << np.arange(0, 16, 2)).sum(1).astype("<u2")
    return (0, _float16_bytes(d[:, 0])), (2, high[:, None].view(np.uint8)), (4, low)


_PACKERS: dict[str, _Packer] = {
    "IQ4_NL": _pack_float16,
    "Q4_1": _pack_float16,
    "Q5_1": _pack_float16,
    "Q4_K": _pack_q4_k,
    "Q5_K": _pack_q4_k,
    "Q2_K": _pack_q2_k,
    "IQ4_XS": _pack_iq4_xs,
}
