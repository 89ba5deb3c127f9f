"""How rows become a type's bytes: by ggml, then, if the inputs' covariance is known, with feedback."""

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from ...files.safetensors import Rows
from ..tensors import TensorPlan
from .block_codec import block_layout
from .ggml import check_values, floored_importance, quantize_rows
from .gptq import ErrorFeedback, FeedbackCache, gptq_round
from .importance import Importance
from .scales import fit_scales

Bytes = NDArray[np.uint8]


class RowQuantizer:
    """Rounds blocks of rows of any tensor, from any thread; the same rows always to the same bytes."""

    def __init__(self, importance: Importance | None) -> None:
        self._importance = importance
        self._feedbacks = FeedbackCache(importance) if importance else None

    def bytes_of(
        self, plan: TensorPlan, rows: Rows, merged: Rows | None = None, directions: Rows | None = None
    ) -> bytes:
        """Round a block of a tensor's rows, (n, columns), or those with an adapter merged in.

        A small adapter rides on the base's own codes: what is rounded is the base, and then as few codes are
        changed as it takes for the difference to come through. Merged first, it would draw every weight's
        rounding noise anew, and that noise would be most of the difference between the two files.

        Args:
            plan: of the tensor.
            rows: of the base.
            merged: the same with the adapter merged in.
            directions: the adapter's A, (r, columns).
        """
        where = f"tensor {plan.source!r}"
        target = rows if merged is None else merged
        if self._importance is None or rows.ndim == 1:
            return quantize_rows(target, plan.type, where)
        means = self._importance.means.get(plan.target)
        passed_on = self._feedback(plan)
        if passed_on is None or means is None:
            return quantize_rows(target, plan.type, where, means)

        def corrected(wanted: Rows) -> Bytes:
            check_values(wanted, plan.type, where)
            data = fit_scales(wanted, plan.type, floored_importance(means))
            if data is None:
                ggml = quantize_rows(wanted, plan.type, where, means)
                data = np.frombuffer(ggml, np.uint8).reshape(len(rows), -1)
            return gptq_round(wanted, data, plan.type, passed_on)

        if merged is None:
            return corrected(rows).tobytes()
        base = corrected(rows)
        kept = dequantize(base, plan.type)
        delta = merged - rows
        if _energy(delta) > _energy(rows - kept):
            return corrected(merged).tobytes()  # it stands out of the noise by itself
        stressed = self._feedback(plan, directions)
        assert stressed is not None, "as it was without directions"
        return gptq_round(kept + delta, base, plan.type, stressed, fitting=True).tobytes()

    def prepare(self, plan: TensorPlan, directions: Rows | None = None) -> None:
        """Compute what bytes_of() will need for any of a tensor's blocks; it does so itself if need be."""
        for along in (None,) if directions is None else (None, directions):
            self._feedback(plan, along)

    def _feedback(self, plan: TensorPlan, directions: Rows | None = None) -> ErrorFeedback | None:
        """How errors are passed on between the columns of a tensor; None if that is unknown, or of no use."""
        kept = block_layout(plan.type)
        if kept is None or self._feedbacks is None:
            return None
        found = self._feedbacks.of(plan.target, directions)
        # Where it is cut between the weights of one scale, that would be in two blocks at once.
        return found if found is not None and found.order.shape[1] % kept.block == 0 else None


def _energy(rows: Rows) -> float:
    return float(np.square(rows, dtype=np.float64).sum())
