"""Converts between a trained vector over a basis and the PEFT TinyLoRA folder that training would save."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import FileError
from ...files.safetensors import SafetensorsFile, write_tensors
from ...stats.arrays import Floats
from .adapter import WEIGHTS_FILE, adapter_folder, load_adapter
from .basis import Basis, BasisOrigin
from .delta import CONFIG_FILE, Delta

_VECTOR = "base_model.tinylora_v.0"
_PROJECTIONS = ".tinylora_P"
_TOLERANCE = 2.0**-8  # bfloat16's precision


def write_tinylora_folder(basis: Basis, numbers: Floats, folder: Path, base_id: str) -> None:
    """Write the adapter of a trained vector, (u,), as a PEFT folder, whose config names the base."""
    origin = basis.origin
    assert len(numbers) == origin.numbers
    config = {
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "peft_type": "TINYLORA",
        "projection_seed": origin.seed,
        "r": origin.rank,
        "save_projection": True,
        "target_modules": basis.targets,
        "task_type": "CAUSAL_LM",
        "tinylora_dropout": 0.0,
        "u": origin.numbers,
        "weight_tying": 1.0,
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    with adapter_folder(folder, {CONFIG_FILE: text.encode()}) as weights:
        write_tensors(weights, {**basis.tensors(), _VECTOR: numbers}, {"format": "pt"})


def read_tinylora_numbers(folder: Path, basis: Basis) -> Floats:
    """The trained vector of an adapter, (u,); FileError if it is not over this basis."""
    adapter, file = load_adapter(folder), SafetensorsFile(folder / WEIGHTS_FILE)
    if adapter.kind != "tinylora" or adapter.trained_parameters != basis.origin.numbers:
        raise FileError(
            f"{folder}: is {adapter.kind} with {adapter.trained_parameters} numbers, not a TinyLoRA with the "
            f"{basis.origin.numbers} of the basis of {basis.origin.name}"
        )
    numbers = file.rows(_VECTOR)
    expected = {f"{module}.weight": delta for module, delta in basis.deltas(numbers).items()}
    same = adapter.deltas.keys() == expected.keys()
    if not same or not all(_is_same(adapter.deltas[name], delta) for name, delta in expected.items()):
        raise FileError(
            f"{folder}: its factors are not those of the basis of {basis.origin.name}, so its numbers have "
            "another meaning"
        )
    return numbers


def with_saved_groups(origin: BasisOrigin, folder: Path) -> BasisOrigin:
    """The origin with as many groups as the projections of an adapter show: they are zero outside."""
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    parts = (
        np.count_nonzero(file.rows(name).any((1, 2)))
        for name, entry in file.entries.items()
        if name.endswith(_PROJECTIONS) and len(entry.shape) == 3
    )
    part = int(max(parts, default=0))
    return replace(origin, groups=1 if not part or origin.numbers % part else origin.numbers // part)


def _is_same(saved: Delta, expected: Delta) -> bool:
    if saved.shape != expected.shape:
        return False
    difference = Delta(np.hstack([saved.b, -expected.b]), np.vstack([saved.a, expected.a])).norm
    return difference <= _TOLERANCE * expected.norm
