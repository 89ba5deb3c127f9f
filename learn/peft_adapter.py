"""A new PEFT adapter on a base model: LoRA, or TinyLoRA over a basis."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TinyLoraConfig, get_peft_model, get_peft_model_state_dict

from ..convert.adapter.adapter import adapter_folder
from ..convert.adapter.basis import Basis
from ..convert.adapter.delta import CONFIG_FILE
from ..convert.source.families import CLASSES
from ..files.safetensors import write_tensors


def attach_adapter(model: Any, basis: Basis | None = None) -> Any:
    """Wrap a transformers model, in place, in a new adapter with the same output as before.

    It is a LoRA of rank 1, or a TinyLoRA with a basis.
    """
    shared = {"task_type": "CAUSAL_LM", "target_modules": CLASSES[type(model).__name__].targets}
    if basis is None:
        return get_peft_model(model, LoraConfig(r=1, lora_alpha=16, **shared))
    origin = basis.origin
    shape = {"r": origin.rank, "u": origin.numbers, "projection_seed": origin.seed, "weight_tying": 1.0}
    adapted = get_peft_model(model, TinyLoraConfig(save_projection=True, **shape, **shared))
    modules = dict(adapted.named_modules())
    for name, array in basis.tensors().items():
        module, _, part = name.rpartition(".")
        getattr(modules[module], part)["default"].data.copy_(torch.from_numpy(array))
    return adapted


def save_adapter(adapted: Any, folder: Path, base_id: str) -> None:
    """Save the adapter of a PEFT model. The same weights give the same files."""
    config = adapted.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_id, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted) + "\n"  # PEFT has sets
    found = get_peft_model_state_dict(
        adapted, save_embedding_layers=False
    )  # "auto" asks the hub for the base
    weights = {name: tensor.numpy() for name, tensor in found.items()}
    with adapter_folder(folder, {CONFIG_FILE: text.encode()}) as file:
        write_tensors(file, weights, {"format": "pt"})
