"""How rows become a type's bytes: by ggml, then, if the inputs' covariance is known, with feedback."""

import threading

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from .codes import layout
from .feedback import influence, round_with_feedback
from .importance import Importance
from .plan import TensorPlan
from .quantize import quantize
from .safetensors_file import Rows

Bytes = NDArray[np.uint8]
_KEPT = 3


class Rounding:
    """Rounds blocks of rows of any tensor, from any thread; the same rows always to the same bytes."""

    def __init__(self, importance: Importance | None) -> None:
        self._importance = importance
        self._influences: dict[str, Rows | None] = {}
        self._lock = threading.Lock()

    def bytes_of(self, plan: TensorPlan, rows: Rows, merged: Rows | None = None) -> bytes:
        """Round a block of a tensor's rows, (n, columns), or those with an adapter merged in.

        A small adapter rides on the base's own codes: what is rounded is the base, and then as few codes are
        changed as it takes for the difference to come through. Merged first, it would draw every weight's
        rounding noise anew, and that noise would be most of the difference between the two files.
        """
        where = f"tensor {plan.source!r}"
        target = rows if merged is None else merged
        if self._importance is None or rows.ndim == 1:
            return quantize(target, plan.type, where)
        means = self._importance.means.get(plan.target)
        passed_on = self._passed_on(plan)
        if passed_on is None:
            return quantize(target, plan.type, where, means)

        def corrected(wanted: Rows) -> Bytes:
            data = np.frombuffer(quantize(wanted, plan.type, where, means), np.uint8)
            return round_with_feedback(wanted, data.reshape(len(rows), -1), plan.type, passed_on)

        if merged is None:
            return corrected(rows).tobytes()
        base = corrected(rows)
        kept = dequantize(base, plan.type)
        delta = merged - rows
        if _energy(delta) > _energy(rows - kept):
            return corrected(merged).tobytes()  # it stands out of the noise by itself
        return round_with_feedback(kept + delta, base, plan.type, passed_on).tobytes()

    def _passed_on(self, plan: TensorPlan) -> Rows | None:
        """How errors are passed on between the columns of a tensor; None if that is unknown, or of no use."""
        assert self._importance is not None
        if layout(plan.type) is None:
            return None
        with self._lock:  # one thread computes it, the others wait for it
            if plan.target not in self._influences:
                covariance = self._importance.covariance(plan.target)
                # Tensors come one after the other: more than a few need not be kept.
                kept = list(self._influences.items())[-_KEPT:]
                found = None if covariance is None else influence(covariance)
                self._influences = dict(kept) | {plan.target: found}
            return self._influences[plan.target]


def _energy(rows: Rows) -> float:
    return float(np.square(rows, dtype=np.float64).sum())
