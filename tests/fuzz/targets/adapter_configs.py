"""adapter_config.json of PEFT adapters: a LoRA and a TinyLoRA, each with weights that fit."""

from pathlib import Path

import numpy as np
from thirteen.convert.adapter.adapter import (
    WEIGHTS_FILE,
    load_adapter,
    norms_by_layer,
    peft_only_reason,
    read_adapter_config,
)
from thirteen.convert.adapter.delta import CONFIG_FILE
from thirteen.convert.source.loading import refuse_code
from thirteen.files.safetensors import write_safetensors

from ..mutators import mutate_json
from ..target import Target, accepts, scratch_folder

_QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


def _folder(kind: str, **shapes: tuple[int, ...]) -> Path:
    folder = scratch_folder(kind)
    tensors = {f"{_QUERY}.{part}.weight": np.ones(shape, np.float32) for part, shape in shapes.items()}
    vectors = {"base_model.tinylora_v.0": np.ones(3, np.float32)} if kind == "tinylora" else {}
    write_safetensors(folder / WEIGHTS_FILE, tensors | vectors, {})
    return folder


_FOLDERS = (
    _folder("lora", lora_A=(2, 8), lora_B=(8, 2)),
    _folder("tinylora", tinylora_A=(2, 8), tinylora_B=(8, 2)),
)


def check(data: bytes) -> bool:
    accepted = [accepts(_load, folder, data) for folder in _FOLDERS]
    return any(accepted)


def _load(folder: Path, data: bytes) -> None:
    (folder / CONFIG_FILE).write_bytes(data)
    refuse_code(folder)
    peft_only_reason(read_adapter_config(folder))
    adapter = load_adapter(folder)
    assert adapter.deltas and all(norm >= 0 for norm in norms_by_layer(adapter).values())
    assert adapter.trained_on is None or isinstance(adapter.trained_on, str)


TARGET = Target(check, mutate=mutate_json)
