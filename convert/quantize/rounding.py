"""Quantization of rows: by GPTQ where the covariance of the inputs is known, else by ggml alone.

GPTQ (arXiv 2210.17323) feeds the error of each column back to the columns after it. It is optimal brain
quantization (arXiv 2208.11580) for all rows at once. It minimizes the error of the layer's output on the
calibration text, by the covariance of the inputs, instead of the error of each weight. Here it starts from
given scales and offsets, which it may search too.
"""

from typing import Literal

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ...stats import Floats
from ..tensors import TensorPlan
from .block_codec import BlockLayout, Bytes, block_layout
from .error_feedback import ErrorFeedback, FeedbackCache
from .ggml import NEED_IMPORTANCE, check_values, dequantize_rows, floored_importance, quantize_rows
from .importance import Importance
from .scales import fit_scales

ScaleChoice = Literal["given", "refit", "search"]

_RIDGE = 1e-5  # of the mean diagonal of the Gram matrix, where the blocks of a row are collinear
_LAZY_COLUMNS = 32  # columns per lazy batch update: their errors reach the columns after them in one product
_SEARCH_WEIGHTS = 1 << 19  # weights that are rounded at once by the search: the arrays fit into the cache
# Candidates of the search for a group: factors of its scale; and, with an offset, factors with shifts of the
# offset in units of the scale.
_SCALES_ALONE = [(factor, 0.0) for factor in np.linspace(0.8, 1.2, 21)]
_SCALES_AND_SHIFTS = [(f, shift) for f in np.linspace(0.8, 1.2, 13) for shift in np.linspace(-0.5, 0.5, 5)]


class RowQuantizer:
    """Quantizes blocks of rows of any tensor; thread-safe and deterministic."""

    def __init__(self, importance: Importance | None, *, search_scales: bool = False) -> None:
        """Quantize with this importance; without one, by ggml alone.

        With `search_scales`, GPTQ searches scales and offsets too, see gptq_round().
        """
        self._importance, self.search_scales = importance, search_scales
        self._feedbacks = FeedbackCache(importance) if importance else None

    def quantize(
        self, plan: TensorPlan, rows: Floats, merged: Floats | None = None, directions: Floats | None = None
    ) -> bytes:
        """Quantize a block of a tensor's rows, with an adapter merged in if there is one.

        A small adapter changes the codes of the quantized base: the base is rounded first, then only as many
        codes change as the difference needs. If it were merged first, every weight's rounding noise would be
        drawn anew, and that noise would be most of the difference between the two files.

        `rows` are those of the base, (n, columns), `merged` the same with the adapter merged in, `directions`
        the adapter's A, (r, columns).
        """
        where = f"tensor {plan.source!r}"
        target = rows if merged is None else merged
        if self._importance is None or rows.ndim == 1:
            return quantize_rows(target, plan.type, where)
        importance = self._importance.mean_squares.get(plan.target)
        if importance is None and plan.type in NEED_IMPORTANCE:  # of an embedding no activations are known
            importance = np.ones(rows.shape[1], np.float32)
        feedback = self._feedback(plan)
        if feedback is None or importance is None:
            return quantize_rows(target, plan.type, where, importance)
        base = _gptq(plan, rows, importance, feedback)
        if merged is None:
            return base.tobytes()
        rounded = dequantize_rows(base, plan.type)
        delta = merged - rows
        # The adapter stands out from the rounding noise; or a value is not finite, which _gptq() refuses.
        if not _energy(delta) <= _energy(rows - rounded):
            return _gptq(plan, merged, importance, feedback).tobytes()
        emphasized = self._feedback(plan, directions)
        assert emphasized is not None, "there was one without directions"
        return gptq_round(rounded + delta, base, plan.type, emphasized, scales="refit").tobytes()

    def prepare(self, plan: TensorPlan, directions: Floats | None = None) -> None:
        """Compute and cache the error feedback that quantize() needs for a tensor's blocks."""
        for along in (None,) if directions is None else (None, directions):
            self._feedback(plan, along)

    def _feedback(self, plan: TensorPlan, directions: Floats | None = None) -> ErrorFeedback | None:
        """The error feedback between a tensor's columns; None if it is unknown or of no use for the type."""
        layout = block_layout(plan.type)
        if layout is None or self._feedbacks is None:
            return None
        search = self.search_scales and directions is None and layout.super_scales
        feedback = self._feedbacks.get(plan.target, directions, layout.group_size if search else 1)
        # The covariance's blocks must not divide a block of the type: its columns share a scale.
        usable = feedback is not None and feedback.permutation.shape[1] % layout.block_size == 0
        return feedback if usable else None


def _gptq(plan: TensorPlan, target: Floats, importance: Floats, feedback: ErrorFeedback) -> Bytes:
    where = f"tensor {plan.source!r}"
    check_values(target, plan.type, where)
    blocks = fit_scales(target, plan.type, floored_importance(importance))
    if blocks is None:
        quantized = quantize_rows(target, plan.type, where, importance)
        blocks = np.frombuffer(quantized, np.uint8).reshape(len(target), -1)
    return gptq_round(
        target, blocks, plan.type, feedback, scales="search" if feedback.group_size > 1 else "given"
    )


def _energy(rows: Floats) -> float:
    return float(np.square(rows, dtype=np.float64).sum())


def gptq_round(
    target: Floats,
    blocks: Bytes,
    type_: GGMLQuantizationType,
    feedback: ErrorFeedback,
    *,
    scales: ScaleChoice = "given",
) -> Bytes:
    """Choose the codes of `blocks` so that the dequantized rows come closest to `target`.

    Args:
        target: rows to approximate, (n, columns).
        blocks: quantized rows whose scales and offsets are used, (n, row bytes).
        type_: their type, one that block_layout() knows.
        feedback: coefficients from error_feedback() for these columns.
        scales: "given" uses scales and offsets as they are. "refit" fits them to the given codes before, and
            to the chosen codes after, in twice the time: where a rounded row is to change a little, this
            contributes most of the change. "search" takes for each group those near the given ones that leave
            the least error after feedback, which must keep the columns of a group together.

    Returns:
        The rounded rows, (n, row bytes).
    """
    layout = block_layout(type_)
    assert layout is not None, type_
    count, width = feedback.permutation.shape
    rounded = blocks.reshape(len(target), count, -1, GGML_QUANT_SIZES[type_][1]).copy()
    accumulated = np.zeros((len(target), feedback.low_rank.shape[2]), np.float32)  # error of finished blocks
    for block in range(count):
        here, wanted = rounded[:, block], target[:, block * width : (block + 1) * width]
        compensated = wanted - accumulated @ feedback.compensation[block]  # (n, width)
        if scales == "refit":
            _refit_scales(layout, here, compensated, feedback.hessian[block])
        if scales == "search":
            rows = max(1, _SEARCH_WEIGHTS // (len(_candidates(layout)) * layout.group_size))
            for start in range(0, len(target), rows):
                part = slice(start, start + rows)
                _search_scales(layout, here[part], compensated[part], feedback, block)
        order, inverse_cholesky = feedback.permutation[block], feedback.inverse_cholesky[block]
        weights = _choose_codes(layout, here, compensated, order, inverse_cholesky)
        if scales == "refit":
            _refit_scales(layout, here, compensated, feedback.hessian[block])
            weights = np.add(*layout.dequantized_terms(here)).reshape(wanted.shape)
        accumulated += (weights - wanted) @ feedback.low_rank[block]
    return rounded.reshape(blocks.shape)


def _refit_scales(layout: BlockLayout, blocks: Bytes, target: Floats, hessian: Floats) -> None:
    """Multiply the super-scales of `blocks`, (n, count, bytes), to come closest to `target`, (n, width)."""
    if not layout.super_scales:
        return
    terms = np.stack(layout.dequantized_terms(blocks)[: len(layout.super_scales)], 1)
    rows, factors, count, size = terms.shape  # (n, super-scales, count, block_size)
    weighted = terms.transpose(2, 0, 1, 3).reshape(count, -1, size) @ hessian.reshape(count, size, -1)
    weighted = weighted.reshape(count, rows, factors, count, size)
    missing = (target - terms.sum(1).reshape(target.shape)).reshape(rows, count, size)
    gram = np.einsum("pnfqs,ngqs->npfqg", weighted, terms).reshape(rows, count * factors, -1)
    gradient = np.einsum("pnfqs,nqs->npf", weighted, missing).reshape(rows, -1)
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2) / gram.shape[1] + np.finfo(np.float32).tiny
    change = np.linalg.solve(gram + ridge[:, None, None] * np.eye(gram.shape[1]), gradient[..., None])
    layout.multiply_super(blocks, (1 + change).astype(np.float32).reshape(rows, count, factors))


def _candidates(layout: BlockLayout) -> list[tuple[float, float]]:
    return _SCALES_AND_SHIFTS if layout.has_offsets else _SCALES_ALONE


def _search_scales(
    layout: BlockLayout, blocks: Bytes, target: Floats, feedback: ErrorFeedback, block: int
) -> None:
    """Replace scales and offsets of `blocks`, (n, count, bytes), by those that leave the least error."""
    assert feedback.group_size == layout.group_size
    rows, size = len(target), layout.group_size
    order, inverse_cholesky = feedback.permutation[block], feedback.inverse_cholesky[block]
    # The error of a column counts as much as the columns after it cannot compensate.
    unexplained = feedback.conditional_variances.reshape(-1, len(order))[block][order]
    scales, offsets = _nearby_scales(layout, blocks)  # (candidates, groups, n)
    chosen = scales[0].copy(), offsets[0].copy()
    wanted = target.T[order]  # (width, n)
    for start in range(0, len(order), size):
        here, after, group = slice(start, start + size), slice(start + size, None), order[start] // size
        tried = (wanted[here, None] - offsets[:, group]).reshape(size, -1)  # (size, candidates * n)
        scale = scales[:, group].reshape(1, -1)
        levels = _round_columns(layout, tried, scale, np.zeros(size, np.intp), inverse_cholesky[here, here])
        errors = tried - levels * scale
        best = (unexplained[here] @ np.square(errors)).reshape(-1, rows).argmin(0)
        for values, candidates in zip(chosen, (scales, offsets), strict=True):
            values[group] = np.take_along_axis(candidates[:, group], best[None], 0)[0]
        errors = np.take_along_axis(errors.reshape(size, -1, rows), best[None, None], 1)[:, 0]
        wanted[after] -= inverse_cholesky[here, after].T @ errors
    layout.write_scales(blocks, *(values.T.reshape(rows, blocks.shape[1], -1) for values in chosen))


def _nearby_scales(layout: BlockLayout, blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and offsets near those of `blocks` that blocks can store, (candidates, groups, n) each."""
    scales, offsets = layout.read_scales(blocks)
    tried, found = blocks.copy(), []
    middle = layout.levels[-1] / 2 if layout.has_offsets else 0.0
    for factor, shift in _candidates(layout):
        moved = np.float32(shift + (1 - factor) * middle)  # the middle of the levels stays but for the shift
        layout.write_scales(tried, np.float32(factor) * scales, offsets + moved * scales)
        found.append(np.stack(layout.read_scales(tried)).reshape(2, len(blocks), -1))
    both = np.ascontiguousarray(np.stack(found).transpose(1, 0, 3, 2))
    return both[0], both[1]


def _choose_codes(
    layout: BlockLayout, blocks: Bytes, target: Floats, order: NDArray[np.intp], inverse_cholesky: Floats
) -> Floats:
    """Choose the codes of `blocks`, (n, count, bytes), for their scales and offsets."""
    rows, group = len(target), order // layout.group_size
    scales, offsets = (np.ascontiguousarray(part.reshape(rows, -1).T) for part in layout.read_scales(blocks))
    wanted = np.ascontiguousarray(target.T)  # (width, n)
    if layout.has_offsets:
        wanted.reshape(len(scales), -1, rows)[:] -= offsets[:, None]
    levels = np.empty_like(wanted)
    levels[order] = _round_columns(layout, wanted[order], scales, group, inverse_cholesky)
    layout.pack_codes(blocks, layout.encode_levels(levels.T).reshape(rows, -1, layout.block_size))
    levels.reshape(len(scales), -1, rows)[:] *= scales[:, None]
    if layout.has_offsets:
        levels.reshape(len(scales), -1, rows)[:] += offsets[:, None]
    return levels.T


def _round_columns(
    layout: BlockLayout, target: Floats, scales: Floats, group: NDArray[np.intp], inverse_cholesky: Floats
) -> Floats:
    """Round columns one after the other, each error fed back to the columns after it.

    Args:
        layout: the blocks' layout.
        target: columns in rounding order, offsets subtracted, (width, n); feedback is subtracted in place.
        scales: scale of each group, (groups, n).
        group: group of each column, (width,).
        inverse_cholesky: see ErrorFeedback, (width, width).

    Returns:
        The levels, (width, n).
    """
    width, rows = target.shape
    invertible = np.abs(scales) >= np.finfo(np.float32).tiny  # not MXFP4's 2**-128, for zeros
    inverse_scales = np.divide(1, scales, out=np.zeros_like(scales), where=invertible)
    levels, weights = np.empty_like(target), np.empty_like(target[0])
    for start in range(0, width, _LAZY_COLUMNS):
        stop = min(start + _LAZY_COLUMNS, width)
        errors = np.empty((stop - start, rows), np.float32)
        for column in range(start, stop):
            # Python's overhead matters here: few operations, and none allocates an array.
            wanted, level = target[column], levels[column]
            wanted -= inverse_cholesky[start:column, column] @ errors[: column - start]
            np.multiply(wanted, inverse_scales[group[column]], out=level)
            layout.round_to_levels(level)
            np.multiply(level, scales[group[column]], out=weights)
            np.subtract(wanted, weights, out=errors[column - start])
        target[stop:] -= inverse_cholesky[start:stop, stop:].T @ errors
    return levels
