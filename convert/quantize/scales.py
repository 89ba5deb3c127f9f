"""Scales and offsets for rounding with feedback, found quickly.

ggml's own search takes most of a conversion's time: it tries up to 37 scales for each group of weights and
rounds the weights anew for each. But what it rounds is thrown away where codes are then chosen with feedback.
So here a few scales are tried, each with the offset and the scale that least squares gives for its codes, for
all groups at once. The types whose search in ggml is quick are left to it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from .block_codec import BlockLayout, block_layout

Type = GGMLQuantizationType
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_CHUNK = 1 << 16  # weights at a time, so that all arrays stay in a processor's cache
_ROOMS = (-0.8, -0.4, 0.0, 0.4, 0.8)  # levels more than a group's range takes, of types with an offset
_STRETCHES = (-12, 0, 12, 24)  # of the level that a group's extreme takes, the least one, -127
_TINY = np.float32(1e-30)
_DEGENERATE = np.float32(1e-5)  # of the energy of levels: what rounding errors can make of a variance of none


def fit_scales(rows: Floats, type_: GGMLQuantizationType, importance: Floats) -> Bytes | None:
    """Blocks of `type_` with scales and offsets for `rows`, (n, columns), and codes yet to be chosen.

    Args:
        rows: what is to be rounded.
        type_: the type.
        importance: how much each column's error weighs, (columns,).

    Returns:
        (n, bytes of a row); None for a type whose scales ggml finds as quickly.
    """
    pack, kept = _PACKED.get(type_), block_layout(type_)
    if pack is None or kept is None:
        return None
    count, columns = rows.shape
    step = max(1, _CHUNK // columns)
    blocks = [_scaled(rows[at : at + step], kept, importance, pack) for at in range(0, count, step)]
    return np.concatenate(blocks).reshape(count, columns // kept.block * GGML_QUANT_SIZES[type_][1])


def _scaled(rows: Floats, kept: BlockLayout, importance: Floats, pack: "_Pack") -> Bytes:
    x = np.ascontiguousarray(rows.reshape(-1, kept.group).T)  # (group, groups)
    w = np.ascontiguousarray(np.broadcast_to(importance, rows.shape).reshape(-1, kept.group).T)
    found = _with_offset(x, w, len(kept.levels) - 1) if kept.zero == 0 else _symmetric(x, w, kept)
    return pack(*(of.reshape(-1, kept.block // kept.group) for of in found))  # (blocks, groups of a block)


def _with_offset(x: Floats, w: Floats, top: int) -> tuple[Floats, ...]:
    """The scale, the offset, at most 0, and the mean level of each group with levels 0 to `top`."""
    low, high = np.minimum(x.min(0), 0), x.max(0)
    span = np.maximum(high - low, _TINY)
    total, sum_x = w.sum(0), (w * x).sum(0)
    best = _Best(x.shape[1])
    for room in _ROOMS:
        inverse = (top + np.float32(room)) / span
        codes = (x - low) * inverse  # (group, groups)
        np.clip(np.rint(codes, out=codes), 0, top, out=codes)
        wl = w * codes
        sum_l, sum_ll, sum_xl = wl.sum(0), (wl * codes).sum(0), (wl * x).sum(0)
        determinant = total * sum_ll - sum_l * sum_l
        alone = sum_xl / np.maximum(sum_ll, _TINY)  # without an offset
        scale = (total * sum_xl - sum_x * sum_l) / np.maximum(determinant, _TINY)
        offset = (sum_x - scale * sum_l) / np.maximum(total, _TINY)
        # Where codes are all alike, scale and offset could be anything; and an offset must not be above 0.
        free = (determinant > _DEGENERATE * total * sum_ll) & (offset < 0)
        scale, offset = np.where(free, scale, alone), np.where(free, offset, 0)
        # Of the squared error, what depends on the codes.
        gain = scale * (2 * sum_xl - scale * sum_ll) + offset * (
            2 * sum_x - 2 * scale * sum_l - offset * total
        )
        best.keep(gain, np.maximum(scale, 0), offset, sum_l / np.maximum(total, _TINY))
    return best.found


def _symmetric(x: Floats, w: Floats, kept: BlockLayout) -> tuple[Floats, ...]:
    """The scale of each group, which may be negative."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]
    extreme = np.where(extreme == 0, _TINY, extreme)
    best = _Best(x.shape[1])
    for stretch in _STRETCHES:
        levels = x * ((kept.levels[0] + np.float32(stretch)) / extreme)
        kept.snap(levels)
        wl = w * levels
        sum_ll, sum_xl = (wl * levels).sum(0), (wl * x).sum(0)
        scale = sum_xl / np.maximum(sum_ll, _TINY)
        best.keep(scale * sum_xl, scale)
    return best.found


class _Best:
    """What was found for each group with the largest gain so far."""

    def __init__(self, groups: int) -> None:
        self.gain = np.full(groups, -np.inf, np.float32)
        self.found: tuple[Floats, ...] = ()

    def keep(self, gain: NDArray[Any], *found: NDArray[Any]) -> None:  # of float32, which stubs may widen
        self.found = self.found or tuple(map(np.zeros_like, found))
        better = gain > self.gain
        for mine, new in zip((self.gain, *self.found), (gain, *found), strict=True):
            np.copyto(mine, new, where=better)


_Pack = Callable[..., Bytes]  # from what was found, (blocks, groups of a block) each, to (blocks, bytes)


def _halves(*values: Floats) -> Bytes:
    """16-bit floats, (blocks, 2 * values)."""
    limit = np.float32(65504)
    return np.stack([np.clip(of, -limit, limit) for of in values], -1).astype("<f2").view(np.uint8)


def _steps(values: Floats, top: int) -> tuple[Floats, Bytes]:
    """Values, none negative, as a step for each block, (blocks,), and how many steps, (blocks, groups)."""
    step = (values.max(1) / top).astype(np.float16).astype(np.float32)
    counts = np.rint(np.divide(values, step[:, None], out=np.zeros_like(values), where=step[:, None] > 0))
    return step, np.minimum(counts, top).astype(np.uint8)


def _both_steps(
    scale: Floats, offset: Floats, level: Floats, top: int
) -> tuple[Floats, Bytes, Floats, Bytes]:
    """Scales and what is taken off, as steps: offsets make up for how rounding scales moves the mean."""
    d, s = _steps(scale, top)
    return d, s, *_steps(np.maximum(0, (d[:, None] * s - scale) * level - offset), top)


def _filled(type_: GGMLQuantizationType, *parts: tuple[int, Bytes]) -> Bytes:
    blocks = np.zeros((len(parts[0][1]), GGML_QUANT_SIZES[type_][1]), np.uint8)
    for at, data in parts:
        blocks[:, at : at + data.shape[1]] = data
    return blocks


def _plain(type_: GGMLQuantizationType) -> _Pack:
    return lambda scale: _filled(type_, (0, _halves(scale[:, 0])))


def _both(type_: GGMLQuantizationType) -> _Pack:
    return lambda scale, offset, level: _filled(type_, (0, _halves(scale[:, 0], offset[:, 0])))


def _k_packed(type_: GGMLQuantizationType) -> _Pack:
    def pack(scale: Floats, offset: Floats, level: Floats) -> Bytes:
        d, s, least, m = _both_steps(scale, offset, level, 63)
        first, second = s[:, :4] | s[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6
        packed = np.concatenate([first, second, s[:, 4:] & 15 | m[:, 4:] << 4], 1)
        return _filled(type_, (0, _halves(d, least)), (4, packed.astype(np.uint8)))

    return pack


def _q2_k(scale: Floats, offset: Floats, level: Floats) -> Bytes:
    d, s, least, m = _both_steps(scale, offset, level, 15)
    return _filled(Type.Q2_K, (0, (s | m << 4).astype(np.uint8)), (80, _halves(d, least)))


def _iq4_xs(scale: Floats) -> Bytes:
    extreme = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], 1)[:, 0]
    d = (extreme / -32).astype(np.float16).astype(np.float32)[:, None]
    steps = np.rint(np.divide(scale, d, out=np.zeros_like(scale), where=d != 0))
    s = (np.clip(steps, -32, 31) + 32).astype(np.uint8)
    low = (s[:, ::2] & 15 | s[:, 1::2] << 4).astype(np.uint8)
    high = (s.astype(np.uint16) >> 4 << np.arange(0, 16, 2)).sum(1).astype("<u2")
    return _filled(Type.IQ4_XS, (0, _halves(d[:, 0])), (2, high[:, None].view(np.uint8)), (4, low))


_PACKED: dict[GGMLQuantizationType, _Pack] = {
    Type.IQ4_NL: _plain(Type.IQ4_NL),
    Type.Q4_1: _both(Type.Q4_1),
    Type.Q5_1: _both(Type.Q5_1),
    Type.Q4_K: _k_packed(Type.Q4_K),
    Type.Q5_K: _k_packed(Type.Q5_K),
    Type.Q2_K: _q2_k,
    Type.IQ4_XS: _iq4_xs,
}
