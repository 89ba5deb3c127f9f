"""Rounding with error feedback: each column's rounding error is made good by the columns after it.

The method is GPTQ's (arXiv 2210.17323), which is optimal brain quantization (arXiv 2208.11580) for all rows
at once, beginning with the scales and offsets that ggml chose: what is minimized is the error of the layer's
output on the calibration text, by the inputs' covariance, and not that of each weight. Since a covariance is
kept in full only within blocks of columns, errors go from block to block by its part of low rank: a sum of
few numbers for each row, which every block takes up as far as the blocks after it cannot do better.
"""

import threading
from dataclasses import dataclass, field

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ...errors import ModelFileError
from .block_codec import BlockLayout, block_layout
from .covariance import Covariance
from .importance import Importance

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]

# Of what looks like the adapter's effect, beside other errors. On SmolLM2-135M, its own adapter riding on
# IQ4_NL, mean slope and cosine are 0.74 and 0.83 with 0, 0.94 and 0.84 with 10, 0.98 and 0.82 with 100.
STRESS = 10.0
RANK_MAX = (
    64  # of adapters whose directions are stressed: with more, nothing would be left to make up for them
)
_KEPT = 8  # tensors come one after the other: more than those of a layer need not be kept
DAMPING = 0.01  # of the mean variance, added to each: what is not in the calibration text also counts
_RIDGE = 1e-5  # of the mean energy of a block's part, where a row's blocks can stand in for each other
_SMALL = 32  # columns of a triangle that is inverted whole
_STRIP = 32  # columns rounded one after the other before their errors go on to the others in one product


@dataclass(frozen=True)
class ErrorFeedback:
    """How errors are passed on.

    Attributes:
        order: of the columns within each block, (blocks, width).
        upper: within a block, from the row's column to those after it in that order, (blocks, width, width).
        taken: by how much a block's columns make up for the sum of earlier blocks' errors, (blocks, rank,
            width).
        low: what each column's error adds to that sum, (blocks, width, rank).
        metric: how errors within a block add up, (blocks, width, width).
        left: of each input's variance, what the columns after it cannot make up for, (columns,).
    """

    order: NDArray[np.intp]
    upper: Floats
    taken: Floats
    low: Floats
    metric: Floats
    left: Floats


def error_feedback(covariance: Covariance) -> ErrorFeedback:
    """How errors are passed on where the inputs have this covariance.

    With e the error of a row, e_b its part in block b and s the sum of e_b L_b over the blocks done, what
    later blocks leave of s at best is s M s', M = (1 + sum of L' D^-1 L over them)^-1 and D the blocks less
    L L'. So a block is rounded by the covariance G = D + L M L', with s M L' G^-1 taken off its target.

    Raises:
        ModelFileError: it is no covariance: some combination of inputs would have a negative variance.
    """
    count, width, _ = covariance.blocks.shape
    low = covariance.low.astype(np.float64).reshape(count, width, -1)
    own = covariance.blocks - low @ low.transpose(0, 2, 1)
    variances = covariance.variances.reshape(count, width)
    damping = DAMPING * variances.mean(1)
    own += np.where(damping > 0, damping, 1.0)[:, None, None] * np.eye(width)
    rank = low.shape[2]
    upper, metric = np.zeros_like(own), np.empty_like(own)
    taken, left = np.empty((count, rank, width)), np.empty((count, width))
    order = np.argsort(-variances, axis=1, kind="stable")
    relief = np.eye(rank)  # the inverse of M
    for block in reversed(range(count)):
        beyond = np.linalg.inv(relief) @ low[block].T  # M L', (rank, width)
        metric[block] = own[block] + low[block] @ beyond
        at = order[block]
        root = _inverse_root(metric[block][np.ix_(at, at)])
        diagonal = np.diagonal(root)
        upper[block] = root / diagonal[:, None]
        taken[block][:, at] = beyond[:, at] @ root.T @ root
        left[block][at] = 1 / diagonal**2
        if block:
            relief += low[block].T @ np.linalg.solve(own[block], low[block])
    return ErrorFeedback(order, *(of.astype(np.float32) for of in (upper, taken, low, metric, left.ravel())))


def _inverse_root(matrix: Doubles) -> Doubles:
    """The upper triangle R with R'R the inverse."""
    try:
        lower = np.linalg.cholesky(matrix[::-1, ::-1]).astype(np.float64)
    except np.linalg.LinAlgError:
        raise ModelFileError("the importance's covariances are none: they have negative variances") from None
    return _inverse_of_lower(lower)[::-1, ::-1]


def _inverse_of_lower(matrix: Doubles) -> Doubles:
    """The inverse of a lower triangle, by halves: numpy has none but that of a full matrix."""
    half = len(matrix) // 2
    if half < _SMALL:
        return np.linalg.inv(matrix).astype(np.float64)
    out: Doubles = np.zeros_like(matrix)
    first, last = _inverse_of_lower(matrix[:half, :half]), _inverse_of_lower(matrix[half:, half:])
    out[:half, :half], out[half:, half:] = first, last
    out[half:, :half] = -last @ (matrix[half:, :half] @ first)
    return out


def gptq_round(
    wanted: Floats,
    blocks: Bytes,
    type_: GGMLQuantizationType,
    passed_on: ErrorFeedback,
    *,
    fitting: bool = False,
) -> Bytes:
    """Choose the codes of `blocks` anew, so that their scales and offsets come closest to `wanted`.

    Args:
        wanted: what the rows should be, (n, columns).
        blocks: the rows with their scales and offsets, (n, bytes of a row).
        type_: their type, one of those that block_layout() knows.
        passed_on: from error_feedback(), for as many columns.
        fitting: also fit scales and offsets to the codes that are there, and again to those chosen. It takes
            as long again; of a rounded row that is to change a little, it makes most of the change.

    Returns:
        The rows rounded better, (n, bytes of a row).
    """
    kept = block_layout(type_)
    assert kept is not None, type_
    count, width = passed_on.order.shape
    parts = blocks.reshape(len(wanted), count, -1, GGML_QUANT_SIZES[type_][1]).copy()
    # What the blocks so far have added up to.
    owed = np.zeros((len(wanted), passed_on.low.shape[2]), np.float32)
    for block in range(count):
        here, goal = parts[:, block], wanted[:, block * width : (block + 1) * width]
        target = goal - owed @ passed_on.taken[block]  # (n, width)
        if fitting:
            _fit(kept, here, target, passed_on.metric[block])
        found = _choose(kept, here, target, passed_on.order[block], passed_on.upper[block])
        if fitting:
            _fit(kept, here, target, passed_on.metric[block])
            found = np.add(*kept.parts(here)).reshape(goal.shape)
        owed += (found - goal) @ passed_on.low[block]
    return parts.reshape(blocks.shape)


def _fit(kept: BlockLayout, blocks: Bytes, target: Floats, metric: Floats) -> None:
    """Multiply the factors of `blocks`, (n, count, bytes), to come closest to `target`, (n, width).

    It is a least squares problem for each row, in the metric of its errors.
    """
    if not kept.factors:
        return
    parts = np.stack(kept.parts(blocks)[: len(kept.factors)], 1)  # (n, factors, count, block)
    rows, factors, count, size = parts.shape
    seen = parts.transpose(2, 0, 1, 3).reshape(count, -1, size) @ metric.reshape(count, size, -1)
    seen = seen.reshape(count, rows, factors, count, size)
    missing = (target - parts.sum(1).reshape(target.shape)).reshape(rows, count, size)
    gram = np.einsum("pnfqs,ngqs->npfqg", seen, parts).reshape(rows, count * factors, -1)
    pull = np.einsum("pnfqs,nqs->npf", seen, missing).reshape(rows, -1)
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2) / gram.shape[1] + np.finfo(np.float32).tiny
    change = np.linalg.solve(gram + ridge[:, None, None] * np.eye(gram.shape[1]), pull[..., None])
    kept.multiply(blocks, (1 + change).astype(np.float32).reshape(rows, count, factors))


def _choose(
    kept: BlockLayout, blocks: Bytes, target: Floats, order: NDArray[np.intp], upper: Floats
) -> Floats:
    """Choose the codes of `blocks`, (n, count, bytes), by their scales and offsets; returns their weights."""
    rows, group = len(target), order // kept.group
    scales, offsets = (np.ascontiguousarray(of.reshape(rows, -1).T) for of in kept.scales(blocks))
    wanted = np.ascontiguousarray(target.T)  # (width, n)
    if kept.zero == 0:
        wanted.reshape(len(scales), -1, rows)[:] -= offsets[:, None]
    levels = np.empty_like(wanted)
    levels[order] = _rounded(kept, wanted[order], scales, group, upper)
    kept.put(blocks, kept.coded(levels.T).reshape(rows, -1, kept.block))
    levels.reshape(len(scales), -1, rows)[:] *= scales[:, None]
    if kept.zero == 0:
        levels.reshape(len(scales), -1, rows)[:] += offsets[:, None]
    return levels.T


def _rounded(
    kept: BlockLayout, left: Floats, scales: Floats, group: NDArray[np.intp], upper: Floats
) -> Floats:
    """The levels, (width, n), of columns in order that come to `left`, (width, n), which is used up.

    Column i has the scales, (groups, n), of group[i].
    """
    width, rows = left.shape
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    levels, value = np.empty_like(left), np.empty_like(left[0])
    for start in range(0, width, _STRIP):
        stop = min(start + _STRIP, width)
        errors = np.empty((stop - start, rows), np.float32)
        for column in range(start, stop):
            # Python's overhead counts here: few operations, none of which makes a new array.
            here, level = left[column], levels[column]
            here -= upper[start:column, column] @ errors[: column - start]
            np.multiply(here, inverse[group[column]], out=level)
            kept.snap(level)
            np.multiply(level, scales[group[column]], out=value)
            np.subtract(here, value, out=errors[column - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return levels


class FeedbackCache:
    """The feedback of each matrix of a model, computed when it is first asked for, from any thread."""

    def __init__(self, importance: Importance) -> None:
        self._importance = importance
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._lock = threading.Lock()

    def of(self, name: str, directions: Floats | None = None) -> ErrorFeedback | None:
        """That of a matrix; None where the importance does not tell how its inputs vary together.

        Args:
            name: of the matrix in the GGUF.
            directions: of an adapter, its A, (r, columns), along which errors count more.
        """
        if directions is not None and len(directions) > RANK_MAX:
            directions = None
        # The matrices that are given the same share it, but not where each has directions of its own.
        key = (self._importance.given(name), 0) if directions is None else (name, id(directions))
        with self._lock:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            for old in list(self._entries)[:-_KEPT]:
                del self._entries[old]
        with entry.lock:  # one thread computes it, the others wait for it
            if not entry.done:
                entry.feedback, entry.done = self._computed(name, directions), True
        return entry.feedback

    def _computed(self, name: str, directions: Floats | None) -> ErrorFeedback | None:
        covariance = self._importance.covariance(name)
        if covariance is None:
            return None
        return error_feedback(covariance if directions is None else covariance.stressing(directions, STRESS))


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: bool = False
    feedback: ErrorFeedback | None = None
