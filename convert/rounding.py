"""How rows become a type's bytes: by ggml, then, if the inputs' covariance is known, with feedback."""

import threading

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from .codes import layout
from .feedback import Feedback, feedback, round_with_feedback
from .importance import Importance
from .plan import TensorPlan
from .quantize import check_values, quantize, raised
from .safetensors_file import Rows
from .scales import scaled_blocks

Bytes = NDArray[np.uint8]
# Of what looks like the adapter's effect, beside other errors. On SmolLM2-135M, its own adapter riding
# on IQ4_NL, mean slope and cosine are 0.74 and 0.83 with 0, 0.94 and 0.84 with 10, 0.98 and 0.82 with 100.
STRESS = 10.0
RANK_MAX = (
    64  # of adapters whose directions are stressed: with more, nothing would be left to make up for them
)
_KEPT = 6  # tensors come one after the other: more than the last few need not be kept


class Rounding:
    """Rounds blocks of rows of any tensor, from any thread; the same rows always to the same bytes."""

    def __init__(self, importance: Importance | None) -> None:
        self._importance = importance
        self._feedbacks: dict[tuple[str, bool], Feedback | None] = {}
        self._lock = threading.Lock()

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
            return quantize(target, plan.type, where)
        means = self._importance.means.get(plan.target)
        passed_on = self._feedback(plan)
        if passed_on is None or means is None:
            return quantize(target, plan.type, where, means)

        def corrected(wanted: Rows) -> Bytes:
            check_values(wanted, plan.type, where)
            data = scaled_blocks(wanted, plan.type, raised(means))
            if data is None:
                ggml = quantize(wanted, plan.type, where, means)
                data = np.frombuffer(ggml, np.uint8).reshape(len(rows), -1)
            return round_with_feedback(wanted, data, plan.type, passed_on)

        if merged is None:
            return corrected(rows).tobytes()
        base = corrected(rows)
        kept = dequantize(base, plan.type)
        delta = merged - rows
        if _energy(delta) > _energy(rows - kept):
            return corrected(merged).tobytes()  # it stands out of the noise by itself
        stressed = passed_on if directions is None else self._feedback(plan, directions)
        assert stressed is not None
        return round_with_feedback(kept + delta, base, plan.type, stressed, fitting=True).tobytes()

    def _feedback(self, plan: TensorPlan, directions: Rows | None = None) -> Feedback | None:
        """How errors are passed on between the columns of a tensor; None if that is unknown, or of no use."""
        assert self._importance is not None
        kept = layout(plan.type)
        if kept is None:
            return None
        key = plan.target, directions is not None
        with self._lock:  # one thread computes it, the others wait for it
            if key not in self._feedbacks:
                covariance = self._importance.covariance(plan.target)
                if covariance is not None and covariance.blocks.shape[-1] % kept.block:
                    covariance = None  # a scale would reach across two blocks
                if covariance is not None and directions is not None and len(directions) <= RANK_MAX:
                    covariance = covariance.stressing(directions, STRESS)
                last = list(self._feedbacks.items())[-_KEPT:]
                self._feedbacks = dict(last) | {key: None if covariance is None else feedback(covariance)}
            return self._feedbacks[key]


def _energy(rows: Rows) -> float:
    return float(np.square(rows, dtype=np.float64).sum())
