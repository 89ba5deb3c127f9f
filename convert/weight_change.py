"""How much an adapter changes each tensor of its base, relative to the size of the tensor."""

import math
from pathlib import Path

import numpy as np

from ..stats.arrays import Floats
from .merged_model import MergedModel
from .source.checkpoint import Checkpoint, open_checkpoint

_ROWS = 1024  # read at once


def weight_changes(base: Path, adapter: Path, adapter_id: str = "") -> dict[str, float]:
    """Frobenius norm of each tensor's change over that of the tensor; only tensors that change are in it.

    Args:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder.
        adapter_id: the adapter as the user named it; the folder's name by default.

    Raises:
        FileError: the base cannot be read; the adapter is damaged, cannot be merged, or is for another base.
        ZeroAdapterError: it changes nothing.
    """
    checkpoint = open_checkpoint(base)
    merged = MergedModel(checkpoint, adapter, adapter_id, tie=False)
    changes = {name: _change(checkpoint, merged, name) for name in merged.deltas or checkpoint.specs}
    return {name: change for name, change in changes.items() if change}


def _change(base: Checkpoint, merged: MergedModel, name: str) -> float:
    """The relative change of a tensor: from the factors, or where they do not tell all, from its rows."""
    delta, spec = merged.deltas.get(name), base.specs[name]
    step = spec.shape[0] if spec.heads else _ROWS  # of a permuted tensor, only whole heads can be read
    from_factors = delta is not None and delta.magnitude is None
    own, changed = 0.0, delta.norm**2 if delta is not None and from_factors else 0.0
    for start in range(0, spec.shape[0], step):
        rows = base.rows(name, start, min(start + step, spec.shape[0]))
        own += _squares(rows)
        if not from_factors:
            changed += _squares(merged.rows(name, start, start + len(rows)) - rows)
    return math.sqrt(changed / own) if own else math.inf if changed else 0.0


def _squares(rows: Floats) -> float:
    return float(np.sum(np.square(rows, dtype=np.float64)))
