"""Quantization of rows: by GPTQ where the covariance of the inputs is known, else by ggml alone."""

import numpy as np

from ...stats.arrays import Floats
from ..tensors import TensorPlan
from .block_codec import Bytes, block_layout
from .error_feedback import ErrorFeedback, FeedbackCache
from .ggml import NEED_IMPORTANCE, check_values, dequantize_rows, floored_importance, quantize_rows
from .gptq import gptq_round
from .importance import Importance
from .scales import fit_scales


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
    """Rows rounded by GPTQ, (n, row bytes)."""
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
