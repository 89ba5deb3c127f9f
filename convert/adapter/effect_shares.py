"""Which matrices carry an adapter's effect, so that a LoRA for run time can leave out the others.

llama.cpp computes four small operations for each adapted matrix, whatever the rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import AdapterError
from ..quantize.importance import Importance, fitting_importance, read_importance
from ..source.checkpoint import open_checkpoint
from .adapter import load_adapter
from .delta import Delta


@dataclass(frozen=True)
class KeptTensors:
    """The tensors of an adapter that are kept.

    Attributes:
        names: their names in the checkpoint.
        of: how many tensors the adapter changes.
        share: their share of the predicted effect.
    """

    names: frozenset[str]
    of: int
    share: float


def keep_effect(adapter: Path, base: Path, importance: Path, share: float) -> KeptTensors:
    """Choose the fewest tensors of an adapter that have a share of its effect.

    The effect of a change of W by BA is predicted as that of noise: sensitivity * E|BAx|**2, with the inputs
    x normalized to length 1, in nats of KL divergence. It takes the matrices as independent.

    Args:
        adapter: a PEFT folder.
        base: the base that it was trained on.
        importance: importance file with sensitivities, of the base or of the one that it was made from.
        share: of the sum over all tensors, from 0 to 1.

    Raises:
        AdapterError: the adapter is damaged or for another base, or the importance file has no sensitivities.
        ThirteenError: the base or the importance file is invalid.
    """
    checkpoint = open_checkpoint(base)
    statistics = fitting_importance(read_importance(importance), checkpoint)
    deltas = load_adapter(adapter).for_base(checkpoint).deltas
    targets = {name: checkpoint.specs[name].target for name in deltas}
    effects = predict_effects(deltas, targets, statistics)
    names, total, kept = set[str](), sum(effects.values()), 0.0
    for name in sorted(effects, key=effects.__getitem__, reverse=True):
        if names and kept >= share * total:
            break
        names.add(name)
        kept += effects[name]
    return KeptTensors(frozenset(names), len(deltas), kept / total if total else 1.0)


def predict_effects(
    deltas: Mapping[str, Delta], targets: Mapping[str, str], importance: Importance
) -> dict[str, float]:
    """Predicted effect of each delta in nats; see keep_effect().

    Args:
        deltas: by name in the checkpoint.
        targets: the tensors' names in the GGUF.
        importance: statistics of the base.

    Raises:
        AdapterError: a tensor has no sensitivity.
    """
    if missing := [name for name in deltas if targets[name] not in importance.sensitivity]:
        raise AdapterError(f"{importance.path}: has no sensitivity of {targets[missing[0]]!r}")
    return {
        name: importance.sensitivity[targets[name]] * _energy(delta, targets[name], importance)
        for name, delta in deltas.items()
    }


def _energy(delta: Delta, target: str, importance: Importance) -> float:
    """E|BAx|**2 over the calibration texts."""
    covariance = importance.covariance(target)
    if covariance is not None:
        projected = covariance.multiply(np.ascontiguousarray(delta.a.T))  # (in, r)
    else:
        projected = importance.energy_shares(target, delta.a.shape[1])[:, None] * delta.a.T
    gram = delta.b.astype(np.float64).T @ delta.b  # (r, r)
    return float(np.sum(gram * (delta.a.astype(np.float64) @ projected)))
