"""Converts between a trained vector over a basis and the PEFT TinyLoRA folder that training would save."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import FileError
from ...files.safetensors import SafetensorsFile, write_tensors
from ...stats.arrays import Floats
from .adapter import WEIGHTS_FILE, adapter_folder, load_adapter, read_adapter_config
from .basis import Basis, BasisOrigin
from .delta import CONFIG_FILE, Delta

_VECTOR = "base_model.tinylora_v.0"
_PROJECTIONS = ".tinylora_P"
_TOLERANCE = 2.0**-8  # bfloat16's precision


def write_tinylora_folder(basis: Basis, numbers: Floats, folder: Path, base_id: str) -> None:
    """Write an adapter as a PEFT folder.

    Args:
        basis: the adapter's basis.
        numbers: the trained vector, (u,).
        folder: the folder to write.
        base_id: the base's name in the adapter's config.

    Raises:
        FileError: the vector has another length than the basis needs.
        OutputError: the folder cannot be written.
    """
    origin = basis.origin
    if len(numbers) != origin.numbers:
        raise FileError(f"{len(numbers)} numbers for a basis of {origin.name} that takes {origin.numbers}")
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
    """Read the trained vector of an adapter over `basis`, (u,).

    Raises:
        FileError: the adapter is damaged, not a TinyLoRA with one vector, or made with other factors.
    """
    kind = read_adapter_config(folder).get("peft_type")
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    vectors = [name for name in file.entries if name.startswith("base_model.tinylora_v.")]
    if kind != "TINYLORA" or vectors != [_VECTOR]:
        raise FileError(f"{folder}: is {kind} with {len(vectors)} vectors, not a TinyLoRA of one")
    numbers = file.rows(_VECTOR)
    saved = load_adapter(folder).deltas
    names = {f"{module}.weight" for module in basis.factors}
    if numbers.shape != (basis.origin.numbers,) or set(saved) != names:
        raise FileError(
            f"{folder}: {numbers.size} numbers over {len(saved)} modules do not fit the basis of "
            f"{basis.origin.name}"
        )
    for module, delta in basis.deltas(numbers).items():
        _check_same_delta(folder, module, saved[f"{module}.weight"], delta)
    return numbers


def with_saved_groups(origin: BasisOrigin, folder: Path) -> BasisOrigin:
    """The origin with as many groups as the saved projections of an adapter show.

    A module's projections are zero outside of its group's part of the vector.

    Raises:
        FileError: the adapter's weights are damaged.
    """
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    parts = (
        np.count_nonzero(file.rows(name).any((1, 2)))
        for name, entry in file.entries.items()
        if name.endswith(_PROJECTIONS) and len(entry.shape) == 3
    )
    part = int(max(parts, default=0))
    return replace(origin, groups=1 if not part or origin.numbers % part else origin.numbers // part)


def _check_same_delta(folder: Path, module: str, saved: Delta, expected: Delta) -> None:
    fits = saved.a.shape == expected.a.shape and len(saved.b) == len(expected.b)
    if fits:
        difference = Delta(np.hstack([saved.b, -expected.b]), np.vstack([saved.a, expected.a])).norm
    if not fits or difference > _TOLERANCE * expected.norm:
        raise FileError(
            f"{folder}: the factors of {module!r} are not those of the basis, so its numbers have another "
            "meaning"
        )
