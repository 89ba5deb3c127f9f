"""Rounding with error feedback: each column's rounding error is made good by the columns after it.

The method is GPTQ's (arXiv 2210.17323), which is optimal brain quantization (arXiv 2208.11580) for all rows
at once, with the scales and offsets that ggml chose: what is minimized is the error of the layer's output on
the calibration text, by the inputs' covariance, and not that of each weight. The covariance is kept for
blocks of neighbouring columns; between blocks it is taken as zero.
"""

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ..errors import ModelFileError
from .codes import Layout, layout

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

DAMPING = 0.01  # of the mean variance, added to each: what is not in the calibration text also counts
_STRIP = 16  # columns rounded one after the other before their errors go on to the others in one product


def influence(covariance: Floats) -> Floats:
    """How the error of each column is passed on to those after it.

    Args:
        covariance: of the inputs, a block after the other, (blocks, width, width).

    Returns:
        Upper triangles U with U'U the inverse of each damped covariance, rows divided by their diagonal.

    Raises:
        ModelFileError: it is no covariance: some combination of inputs would have a negative variance.
    """
    width = covariance.shape[-1]
    damped = covariance.astype(np.float64)
    variances = np.trace(damped, axis1=1, axis2=2) / width
    damped += np.where(variances > 0, DAMPING * variances, 1.0)[:, None, None] * np.eye(width)
    try:
        upper = np.linalg.cholesky(np.linalg.inv(damped)).transpose(0, 2, 1)
    except np.linalg.LinAlgError:
        raise ModelFileError("the importance's covariances are none: they have negative variances") from None
    divided: Floats = (upper / np.diagonal(upper, axis1=1, axis2=2)[..., None]).astype(np.float32)
    return divided


def round_with_feedback(
    wanted: Floats, blocks: Bytes, type_: GGMLQuantizationType, passed_on: Floats
) -> Bytes:
    """Choose the codes of `blocks` anew, so that their scales and offsets come closest to `wanted`.

    Args:
        wanted: what the rows should be, (n, columns).
        blocks: the rows as ggml rounded them, (n, bytes of a row).
        type_: their type, one of those that layout() knows.
        passed_on: from influence(), for (columns / width) blocks.

    Returns:
        The rows with other codes, (n, bytes of a row).
    """
    kept = layout(type_)
    assert kept is not None, type_
    rows, columns = wanted.shape
    parts = blocks.reshape(rows, -1, GGML_QUANT_SIZES[type_][1]).copy()
    scales, offsets = (np.ascontiguousarray(of.reshape(rows, -1).T) for of in kept.scales(parts))
    codes = np.empty((columns, rows), np.uint8)
    width = passed_on.shape[-1]
    left = np.ascontiguousarray(wanted.T)  # what is still to be made of each column, (columns, n)
    for block, upper in enumerate(passed_on):
        for start in range(0, width, _STRIP):
            stop, first = min(start + _STRIP, width), block * width
            errors = np.empty((stop - start, rows), np.float32)
            for column in range(start, stop):
                here = left[first + column]
                here -= upper[start:column, column] @ errors[: column - start]
                group = (first + column) // kept.group
                codes[first + column], value = _nearest(kept, here, scales[group], offsets[group])
                np.subtract(here, value, out=errors[column - start])
            left[first + stop : first + width] -= upper[start:stop, stop:].T @ errors
    kept.put(parts, codes.T.reshape(rows, -1, kept.block))
    return parts.reshape(rows, -1)


def _nearest(kept: Layout, wanted: Floats, scale: Floats, offset: Floats) -> tuple[Bytes, Floats]:
    """The codes whose levels come nearest, and what they stand for, (n,) each."""
    steps = np.divide(wanted - offset, scale, out=np.zeros_like(wanted), where=scale != 0)
    code = kept.nearest(steps)
    return code, kept.levels[code] * scale + offset
