"""Coefficients of GPTQ's error feedback, from the covariance of a matrix's inputs.

The covariance is full only within blocks of columns. Between blocks, the error propagates through the
low-rank part of the covariance: a few numbers per row, of which each block corrects what later blocks cannot
correct better.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...stats import Doubles, Floats
from .importance import Covariance, Importance

# Weight of the error that resembles the adapter's effect, relative to other errors. On SmolLM2-135M with its
# own adapter over IQ4_NL, mean slope and cosine are 0.74 and 0.83 with 0, 0.94 and 0.84 with 10, 0.98 and
# 0.82 with 100.
DIRECTION_WEIGHT = 10.0
DIRECTIONS_MAX = 64  # with more emphasized directions, too few would be left to compensate errors in
DAMPING = 0.01  # of the mean variance, added to each: inputs outside the calibration text count too
_CACHE_SIZE = 8  # tensors come one after the other: more than those of a layer need not be cached
_INVERSE_WIDTH = 32  # triangular matrices up to this width are inverted as full ones


@dataclass(frozen=True)
class ErrorFeedback:
    """Coefficients of the error feedback between columns."""

    group_size: int  # number of neighbouring columns that are rounded one after the other
    # order in which the columns of a block are rounded (act-order), (blocks, width)
    permutation: NDArray[np.intp]
    # upper Cholesky factor of a block's inverse Hessian in that order, each row divided by its diagonal: from
    # the row's column to the columns after it, (blocks, width, width)
    inverse_cholesky: Floats
    # correction of a block's target per unit of the accumulated error of earlier blocks, (blocks, rank,
    # width)
    compensation: Floats
    low_rank: Floats  # contribution of each column's error to the accumulated error, (blocks, width, rank)
    hessian: Floats  # quadratic form of the errors within a block, (blocks, width, width)
    # variance of each input that the columns after it leave unexplained, (columns,)
    conditional_variances: Floats


def error_feedback(covariance: Covariance, group_size: int = 1) -> ErrorFeedback:
    """Compute the error feedback for inputs with this covariance.

    Columns are rounded by falling variance, those of a group of `group_size` together.

    With e the error of a row, e_b its part in block b and s the sum of e_b L_b over finished blocks, the
    later blocks can reduce the cost of s to s M s' at best, with M = (1 + sum of L' D^-1 L over them)^-1 and
    D the diagonal blocks less L L'. So each block is rounded with the Hessian G = D + L M L', and s M L' G^-1
    is subtracted from its target.

    Raises:
        LinAlgError: the matrix is no covariance: some combination of inputs has a negative variance.
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
    permutation = _act_order(variances, group_size)
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
    return ErrorFeedback(group_size, permutation, *(array.astype(np.float32) for array in arrays))


def _act_order(variances: Floats, group_size: int) -> NDArray[np.intp]:
    """Columns by the falling mean variance of their group, then by their own, (blocks, width)."""
    groups = variances.reshape(len(variances), -1, group_size)
    means = groups.mean(2).repeat(group_size, axis=1)
    numbers = np.broadcast_to(np.arange(groups.shape[1]).repeat(group_size), means.shape)
    return np.lexsort((-variances, numbers, -means))


def _inverse_cholesky(matrix: Doubles) -> Doubles:
    """The upper triangular R with R'R the inverse of `matrix`."""
    lower = np.linalg.cholesky(matrix[::-1, ::-1]).astype(np.float64)
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


class FeedbackCache:
    """Thread-safe cache of the error feedback of a model's matrices, computed on first use."""

    def __init__(self, importance: Importance) -> None:
        self._importance = importance
        self._entry = lru_cache(_CACHE_SIZE)(lambda *key: (threading.Lock(), list[ErrorFeedback | None]()))
        self._lock = threading.Lock()

    def get(self, name: str, directions: Floats | None = None, group_size: int = 1) -> ErrorFeedback | None:
        """The error feedback of a matrix; None without a covariance of its inputs, or where it has no use.

        Errors along `directions`, an adapter's A, (r, columns), get a larger weight. FileError if the file's
        covariance cannot be read, or is none.
        """
        if directions is not None and len(directions) > DIRECTIONS_MAX:
            directions = None
        # Matrices with the same input share an entry, unless each has directions of its own.
        own = (self._importance.input_of(name), 0) if directions is None else (name, id(directions))
        with self._lock:  # two threads could miss the cache at once, and get an entry each
            lock, computed = self._entry(*own, group_size)
        with lock:  # one thread computes it, the others wait for it
            if not computed:
                computed.append(self._compute(name, directions, group_size))
        return computed[0]

    def _compute(self, name: str, directions: Floats | None, group_size: int) -> ErrorFeedback | None:
        importance = self._importance
        covariance = importance.covariance(name)
        if covariance is None or covariance.blocks.shape[1] % group_size:
            return None
        if directions is not None:
            covariance = covariance.emphasized(directions, DIRECTION_WEIGHT)
        try:
            return error_feedback(covariance, group_size)
        except np.linalg.LinAlgError:
            stored = importance.covariance_blocks[importance.input_of(name)].name
            raise FileError(f"{importance.path}: tensor {stored!r} has negative variances") from None
