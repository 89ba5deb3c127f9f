"""Rounding with error feedback: each column's rounding error is made good by the columns after it.

The method is GPTQ's (arXiv 2210.17323), which is optimal brain quantization (arXiv 2208.11580) for all rows
at once, beginning with the scales and offsets that ggml chose: what is minimized is the error of the layer's
output on the calibration text, by the inputs' covariance, and not that of each weight. Since a covariance is
kept in full only within blocks of columns, errors go from block to block by its part of low rank: a sum of
few numbers for each row, which every block takes up as far as the blocks after it cannot do better.
"""

from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ..errors import ModelFileError
from .codes import Layout, layout
from .covariance import Covariance

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]

DAMPING = 0.01  # of the mean variance, added to each: what is not in the calibration text also counts
_RIDGE = 1e-5  # of the mean energy of a block's part, where a row's blocks can stand in for each other
_STRIP = 16  # columns rounded one after the other before their errors go on to the others in one product


@dataclass(frozen=True)
class Feedback:
    """How errors are passed on.

    Attributes:
        order: of the columns within each block, (blocks, width).
        upper: within a block, from the row's column to those after it in that order, (blocks, width, width).
        taken: by how much a block's columns make up for the sum of earlier blocks' errors, (blocks, rank,
            width).
        low: what each column's error adds to that sum, (blocks, width, rank).
        metric: how errors within a block add up, (blocks, width, width).
    """

    order: NDArray[np.intp]
    upper: Floats
    taken: Floats
    low: Floats
    metric: Floats


def feedback(covariance: Covariance) -> Feedback:
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
    upper, metric, taken = np.empty_like(own), np.empty_like(own), np.empty((count, rank, width))
    order = np.argsort(-variances, axis=1, kind="stable")
    relief = np.eye(rank)  # the inverse of M
    for block in reversed(range(count)):
        left = np.linalg.inv(relief) @ low[block].T  # M L', (rank, width)
        metric[block] = own[block] + low[block] @ left
        inverse = _inverse(metric[block])
        taken[block] = left @ inverse
        root = np.linalg.cholesky(inverse[np.ix_(order[block], order[block])]).T
        upper[block] = root / np.diagonal(root)[:, None]
        if block:
            relief += low[block].T @ _inverse(own[block]) @ low[block]
    return Feedback(order, *(of.astype(np.float32) for of in (upper, taken, low, metric)))


def _inverse(matrix: Doubles) -> Doubles:
    try:
        root = np.linalg.inv(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        raise ModelFileError("the importance's covariances are none: they have negative variances") from None
    inverse: Doubles = root.T @ root
    return inverse


def round_with_feedback(
    wanted: Floats, blocks: Bytes, type_: GGMLQuantizationType, passed_on: Feedback, *, fitting: bool = False
) -> Bytes:
    """Choose the codes of `blocks` anew, so that their scales and offsets come closest to `wanted`.

    Args:
        wanted: what the rows should be, (n, columns).
        blocks: the rows with their scales and offsets, (n, bytes of a row).
        type_: their type, one of those that layout() knows.
        passed_on: from feedback(), for as many columns.
        fitting: also fit scales and offsets to the codes that are there, and again to those chosen. It takes
            as long again; of a rounded row that is to change a little, it makes most of the change.

    Returns:
        The rows rounded better, (n, bytes of a row).
    """
    kept = layout(type_)
    assert kept is not None, type_
    count, width = passed_on.order.shape
    parts = blocks.reshape(len(wanted), count, -1, GGML_QUANT_SIZES[type_][1]).copy()
    owed = np.zeros(
        (len(wanted), passed_on.low.shape[2]), np.float32
    )  # what the blocks so far have added up to
    for block in range(count):
        here, goal = parts[:, block], wanted[:, block * width : (block + 1) * width]
        target = goal - owed @ passed_on.taken[block]  # (n, width)
        if fitting:
            _fit(kept, here, target, passed_on.metric[block])
        _choose(kept, here, target, passed_on.order[block], passed_on.upper[block])
        if fitting:
            _fit(kept, here, target, passed_on.metric[block])
        owed += (np.add(*kept.parts(here)).reshape(goal.shape) - goal) @ passed_on.low[block]
    return parts.reshape(blocks.shape)


def _fit(kept: Layout, blocks: Bytes, target: Floats, metric: Floats) -> None:
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


def _choose(kept: Layout, blocks: Bytes, target: Floats, order: NDArray[np.intp], upper: Floats) -> None:
    """Choose the codes of `blocks`, (n, count, bytes), by their scales and offsets."""
    rows, group = len(target), order // kept.group
    scales, offsets = (of.reshape(rows, -1).T[group] for of in kept.scales(blocks))  # (width, n)
    codes = np.empty(target.T.shape, np.uint8)
    codes[order] = _round_block(kept, target.T[order], scales, offsets, upper)
    kept.put(blocks, codes.T.reshape(rows, -1, kept.block))


def _round_block(kept: Layout, left: Floats, scales: Floats, offsets: Floats, upper: Floats) -> Bytes:
    """The codes of columns in order, (width, n), which should come to `left`, (width, n); that is used up."""
    width, rows = left.shape
    codes = np.empty(left.shape, np.uint8)
    for start in range(0, width, _STRIP):
        stop = min(start + _STRIP, width)
        errors = np.empty((stop - start, rows), np.float32)
        for column in range(start, stop):
            here = left[column]
            here -= upper[start:column, column] @ errors[: column - start]
            codes[column], value = _nearest(kept, here, scales[column], offsets[column])
            np.subtract(here, value, out=errors[column - start])
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return codes


def _nearest(kept: Layout, wanted: Floats, scale: Floats, offset: Floats) -> tuple[Bytes, Floats]:
    """The codes whose levels come nearest, and what they stand for, (n,) each."""
    steps = np.divide(wanted - offset, scale, out=np.zeros_like(wanted), where=scale != 0)
    code = kept.nearest(steps)
    return code, kept.levels[code] * scale + offset
