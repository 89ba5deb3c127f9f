"""A basis and some numbers as the PEFT TinyLoRA folder that training would save; and back to the numbers."""

import json
from pathlib import Path

import numpy as np

from ...errors import AdapterError
from ...files.output import make_folder, output_errors
from ...files.safetensors import Rows, SafetensorsFile, write_safetensors
from .adapter import WEIGHTS, load_adapter, read_config
from .basis import TARGETS, Basis
from .delta import CONFIG, Delta

_VECTOR = "base_model.tinylora_v.0"
_TOLERANCE = 2.0**-8  # a step of bfloat16


def write_folder(basis: Basis, numbers: Rows, folder: Path, base_id: str) -> None:
    """Write the adapter of `numbers`, (numbers,), made for the base that is called `base_id`.

    Raises:
        AdapterError: there are not as many as the basis takes.
        OutputError: it cannot be written.
    """
    origin = basis.origin
    if len(numbers) != origin.numbers:
        raise AdapterError(f"{len(numbers)} numbers for a basis of {origin.name} that takes {origin.numbers}")
    config = {
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "peft_type": "TINYLORA",
        "projection_seed": origin.seed,
        "r": origin.rank,
        "save_projection": True,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
        "tinylora_dropout": 0.0,
        "u": origin.numbers,
        "weight_tying": 1.0,
    }
    make_folder(folder)
    with output_errors(folder):
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_safetensors(folder / WEIGHTS, {**basis.tensors(), _VECTOR: numbers}, {"format": "pt"})


def numbers_of(folder: Path, basis: Basis) -> Rows:
    """The numbers of an adapter over `basis`, (numbers,).

    Raises:
        AdapterError: it is damaged, no TinyLoRA of one vector, or made over other factors.
    """
    kind = read_config(folder).get("peft_type")
    file = SafetensorsFile(folder / WEIGHTS, AdapterError)
    vectors = [name for name in file.entries if name.startswith("base_model.tinylora_v.")]
    if kind != "TINYLORA" or vectors != [_VECTOR]:
        raise AdapterError(
            f"{folder}: a code holds a TinyLoRA of one vector; this is {kind} with {len(vectors)} vectors"
        )
    numbers = file.rows(_VECTOR)
    found = load_adapter(folder).deltas
    if numbers.shape != (basis.origin.numbers,) or set(found) != {
        f"{module}.weight" for module in basis.factors
    }:
        raise AdapterError(
            f"{folder}: {numbers.size} numbers over {len(found)} modules do not fit the basis of "
            f"{basis.origin.name}"
        )
    for module, made in basis.deltas(numbers).items():
        _check_alike(folder, module, found[f"{module}.weight"], made)
    return numbers


def _check_alike(folder: Path, module: str, found: Delta, made: Delta) -> None:
    fits = found.a.shape == made.a.shape and len(found.b) == len(made.b)
    if fits:
        difference = Delta(np.hstack([found.b, -made.b]), np.vstack([found.a, made.a])).norm
    if not fits or difference > _TOLERANCE * made.norm:
        raise AdapterError(
            f"{folder}: the factors of {module!r} are not the basis' own: its numbers mean "
            "something else there"
        )
