"""Fast search for the scales and offsets of blocks whose codes GPTQ then chooses.

ggml's own search takes most of a conversion's time: it tries up to 37 scales per group of weights and rounds
the weights for each. GPTQ discards those codes. This search tries a few scales for all groups at once and
solves least squares for the scale and the offset of the resulting codes. Types that ggml searches quickly are
left to ggml.
"""

from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ...stats import Floats
from .block_codec import BlockLayout, Bytes, block_layout

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
    largest_code, layout = _LARGEST_CODE.get(type_.name), block_layout(type_)
    if largest_code is None or layout is None:
        return None
    step = max(1, _CHUNK_WEIGHTS // rows.shape[1])
    shape = (len(rows), rows.shape[1] // layout.block_size, GGML_QUANT_SIZES[type_][1])
    blocks = np.zeros(shape, np.uint8)
    for start in range(0, len(rows), step):
        chunk = blocks[start : start + step].reshape(-1, shape[2])
        _write(chunk, layout, largest_code, _fit(rows[start : start + step], layout, importance))
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
    def __init__(self, groups: int) -> None:
        self.gain = np.full(groups, -np.inf, np.float32)
        self.parameters: tuple[Floats, ...] = ()

    def update(self, gain: NDArray[Any], *parameters: NDArray[Any]) -> None:  # float32, which stubs may widen
        self.parameters = self.parameters or tuple(map(np.zeros_like, parameters))
        better = gain > self.gain
        for best, new in zip((self.gain, *self.parameters), (gain, *parameters), strict=True):
            np.copyto(best, new, where=better)


def _write(blocks: Bytes, layout: BlockLayout, largest_code: int, parameters: list[Floats]) -> None:
    scale, *with_offset = parameters
    largest, nothing = np.float32(largest_code), np.zeros_like(scale)
    super_scale: Floats = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)[:, 0] / largest
    if not with_offset:
        layout.write_super(blocks, super_scale)
        layout.write_scales(blocks, scale, nothing)
        return
    layout.write_super(blocks, super_scale, nothing[:, 0])
    layout.write_scales(blocks, scale, nothing)
    # Minimums correct the shift of the mean that the rounding of a scale causes.
    offset, level = with_offset
    minimum = np.maximum(0, (layout.read_scales(blocks)[0] - scale) * level - offset)
    layout.write_super(blocks, super_scale, minimum.max(1) / largest)
    layout.write_scales(blocks, scale, -minimum)


# The code of the largest scale of a block, and of the largest minimum; 1 where scales are no codes.
_LARGEST_CODE = {"IQ4_NL": 1, "Q4_1": 1, "Q5_1": 1, "Q4_K": 63, "Q5_K": 63, "Q2_K": 15, "IQ4_XS": -32}
