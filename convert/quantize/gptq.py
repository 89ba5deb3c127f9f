"""GPTQ (arXiv 2210.17323): rounding with error feedback from each column to the columns after it.

GPTQ is optimal brain quantization (arXiv 2208.11580) for all rows at once. It minimizes the error of the
layer's output on the calibration text, by the covariance of the inputs, instead of the error of each weight.
Here it starts from given scales and offsets.

The covariance is full only within blocks of columns. Between blocks, the error propagates through the
low-rank part of the covariance: a few numbers per row, of which each block corrects what later blocks cannot
correct better.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ...errors import ModelFileError
from .block_codec import BlockLayout, Bytes, Floats, block_layout
from .covariance import Covariance
from .importance import Importance

Doubles = NDArray[np.float64]

# Weight of the error that resembles the adapter's effect, relative to other errors. On SmolLM2-135M with its
# own adapter over IQ4_NL, mean slope and cosine are 0.74 and 0.83 with 0, 0.94 and 0.84 with 10, 0.98 and
# 0.82 with 100.
DIRECTION_WEIGHT = 10.0
DIRECTIONS_MAX = 64  # with more emphasized directions, too few would be left to compensate errors in
DAMPING = 0.01  # of the mean variance, added to each: inputs outside the calibration text count too
_CACHE_SIZE = 8  # tensors come one after the other: more than those of a layer need not be cached
_RIDGE = 1e-5  # of the mean diagonal of the Gram matrix, where the blocks of a row are collinear
_INVERSE_WIDTH = 32  # triangular matrices up to this width are inverted as full ones
_LAZY_COLUMNS = 32  # columns per lazy batch update: their errors reach the columns after them in one product


@dataclass(frozen=True)
class ErrorFeedback:
    """Coefficients of the error feedback between columns.

    Attributes:
        permutation: order in which the columns of a block are rounded (act-order), (blocks, width).
        inverse_cholesky: upper Cholesky factor of a block's inverse Hessian in that order, each row divided
            by its diagonal: from the row's column to the columns after it, (blocks, width, width).
        compensation: correction of a block's target per unit of the accumulated error of earlier blocks,
            (blocks, rank, width).
        low_rank: contribution of each column's error to the accumulated error, (blocks, width, rank).
        hessian: quadratic form of the errors within a block, (blocks, width, width).
        conditional_variances: variance of each input that the columns after it leave unexplained, (columns,).
    """

    permutation: NDArray[np.intp]
    inverse_cholesky: Floats
    compensation: Floats
    low_rank: Floats
    hessian: Floats
    conditional_variances: Floats


def error_feedback(covariance: Covariance) -> ErrorFeedback:
    """Compute the error feedback for inputs with this covariance.

    With e the error of a row, e_b its part in block b and s the sum of e_b L_b over finished blocks, the
    later blocks can reduce the cost of s to s M s' at best, with M = (1 + sum of L' D^-1 L over them)^-1 and
    D the diagonal blocks less L L'. So each block is rounded with the Hessian G = D + L M L', and s M L' G^-1
    is subtracted from its target.

    Raises:
        ModelFileError: the matrix is no covariance: some combination of inputs has a negative variance.
    """
    count, width, _ = covariance.blocks.shape
    low_rank = covariance.low_rank.astype(np.float64).reshape(count, width, -1)
    rank = low_rank.shape[2]
    variances = covariance.variances.reshape(count, width)
    damping = DAMPING * variances.mean(1)
    residual = covariance.blocks - low_rank @ low_rank.transpose(0, 2, 1)  # D
    residual += np.where(damping > 0, damping, 1.0)[:, None, None] * np.eye(width)
    inverse_cholesky, hessian = np.zeros_like(residual), np.empty_like(residual)
    compensation, conditional = np.empty((count, rank, width)), np.empty((count, width))
    permutation = np.argsort(-variances, axis=1, kind="stable")
    inverse_m = np.eye(rank)
    for block in reversed(range(count)):
        coupling = np.linalg.inv(inverse_m) @ low_rank[block].T  # M L', (rank, width)
        hessian[block] = residual[block] + low_rank[block] @ coupling
        order = permutation[block]
        factor = _inverse_cholesky(hessian[block][np.ix_(order, order)])
        diagonal = np.diagonal(factor)
        inverse_cholesky[block] = factor / diagonal[:, None]
        compensation[block][:, order] = coupling[:, order] @ factor.T @ factor
        conditional[block][order] = 1 / diagonal**2
        if block:
            inverse_m += low_rank[block].T @ np.linalg.solve(residual[block], low_rank[block])
    arrays = (inverse_cholesky, compensation, low_rank, hessian, conditional.ravel())
    return ErrorFeedback(permutation, *(array.astype(np.float32) for array in arrays))


def _inverse_cholesky(matrix: Doubles) -> Doubles:
    """The upper triangular R with R'R the inverse of `matrix`."""
    try:
        lower = np.linalg.cholesky(matrix[::-1, ::-1]).astype(np.float64)
    except np.linalg.LinAlgError:
        raise ModelFileError("the importance file's covariances have negative variances") from None
    return _inverse_of_lower(lower)[::-1, ::-1]


def _inverse_of_lower(matrix: Doubles) -> Doubles:
    """The inverse of a lower triangular matrix by recursive halving; NumPy only inverts full matrices."""
    half = len(matrix) // 2
    if half < _INVERSE_WIDTH:
        return np.linalg.inv(matrix).astype(np.float64)
    inverse: Doubles = np.zeros_like(matrix)
    first, last = _inverse_of_lower(matrix[:half, :half]), _inverse_of_lower(matrix[half:, half:])
    inverse[:half, :half], inverse[half:, half:] = first, last
    inverse[half:, :half] = -last @ (matrix[half:, :half] @ first)
    return inverse


def gptq_round(
    target: Floats,
    blocks: Bytes,
    type_: GGMLQuantizationType,
    feedback: ErrorFeedback,
    *,
    refit_scales: bool = False,
) -> Bytes:
    """Choose the codes of `blocks` so that the dequantized rows come closest to `target`.

    Args:
        target: rows to approximate, (n, columns).
        blocks: quantized rows whose scales and offsets are used, (n, row bytes).
        type_: their type, one that block_layout() knows.
        feedback: coefficients from error_feedback() for these columns.
        refit_scales: also fit scales and offsets, to the given codes before and to the chosen codes after. It
            doubles the time; where a rounded row is to change a little, it contributes most of the change.

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
        if refit_scales:
            _refit_scales(layout, here, compensated, feedback.hessian[block])
        order, inverse_cholesky = feedback.permutation[block], feedback.inverse_cholesky[block]
        weights = _choose_codes(layout, here, compensated, order, inverse_cholesky)
        if refit_scales:
            _refit_scales(layout, here, compensated, feedback.hessian[block])
            weights = np.add(*layout.dequantized_terms(here)).reshape(wanted.shape)
        accumulated += (weights - wanted) @ feedback.low_rank[block]
    return rounded.reshape(blocks.shape)


def _refit_scales(layout: BlockLayout, blocks: Bytes, target: Floats, hessian: Floats) -> None:
    """Multiply the super-scales of `blocks`, (n, count, bytes), to come closest to `target`, (n, width).

    This solves one least squares problem per row, with the Hessian as the metric of its errors.
    """
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
    layout.multiply_super_scales(blocks, (1 + change).astype(np.float32).reshape(rows, count, factors))


def _choose_codes(
    layout: BlockLayout, blocks: Bytes, target: Floats, order: NDArray[np.intp], inverse_cholesky: Floats
) -> Floats:
    """Choose the codes of `blocks`, (n, count, bytes), for their scales and offsets.

    Returns:
        The dequantized weights, (n, width).
    """
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
        target: columns in rounding order, offsets subtracted, (width, n); overwritten.
        scales: scale of each group, (groups, n).
        group: group of each column, (width,).
        inverse_cholesky: see ErrorFeedback, (width, width).

    Returns:
        The levels, (width, n).
    """
    width, rows = target.shape
    inverse_scales = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
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


class FeedbackCache:
    """Thread-safe cache of the error feedback of a model's matrices, computed on first use."""

    def __init__(self, importance: Importance) -> None:
        self._importance = importance
        self._entries: dict[tuple[str, int], _CachedFeedback] = {}
        self._lock = threading.Lock()

    def get(self, name: str, directions: Floats | None = None) -> ErrorFeedback | None:
        """The error feedback of a matrix; None where the importance has no covariance of its inputs.

        Args:
            name: name of the matrix in the GGUF.
            directions: an adapter's A, (r, columns): errors along its rows get a larger weight.
        """
        if directions is not None and len(directions) > DIRECTIONS_MAX:
            directions = None
        # Matrices with the same input share an entry, unless each has directions of its own.
        key = (self._importance.input_of(name), 0) if directions is None else (name, id(directions))
        with self._lock:
            entry = self._entries.pop(key, None) or _CachedFeedback()
            self._entries[key] = entry
            for oldest in list(self._entries)[:-_CACHE_SIZE]:
                del self._entries[oldest]
        with entry.lock:  # one thread computes it, the others wait for it
            if not entry.done:
                entry.feedback, entry.done = self._compute(name, directions), True
        return entry.feedback

    def _compute(self, name: str, directions: Floats | None) -> ErrorFeedback | None:
        covariance = self._importance.covariance(name)
        if covariance is None:
            return None
        if directions is not None:
            covariance = covariance.emphasized(directions, DIRECTION_WEIGHT)
        return error_feedback(covariance)


@dataclass
class _CachedFeedback:
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: bool = False
    feedback: ErrorFeedback | None = None
