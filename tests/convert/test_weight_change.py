"""Sizes of weight changes, against those of PEFT's own merge."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoHaConfig, LoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.workflows.adapter_check import weight_changes

from .peft_adapters import base_tensors, peft_merged, save_random_adapter

TARGETS = ["q_proj", "up_proj"]
KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS),
    "dora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=True),
    "loha": LoHaConfig(r=2, target_modules=TARGETS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_those_of_the_merged_tensors(kind, base, tmp_path):
    """DoRA's factors alone would not tell its change, and LoHa has none."""
    adapter = save_random_adapter(base("llama"), KINDS[kind], tmp_path / kind)
    before, after = base_tensors(base("llama")), peft_merged(base("llama"), adapter)
    expected = {
        name: np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        for name in before
        if any(target in name for target in TARGETS)
    }
    assert weight_changes(base("llama"), adapter) == pytest.approx(expected, rel=1e-4)


def test_a_gguf_whose_rows_are_permuted_has_the_same_changes(base, tmp_path):
    adapter = save_random_adapter(base("llama"), KINDS["dora"], tmp_path / "dora")
    convert(Recipe(base("llama"), tmp_path / "base.gguf", Uniform("F32")))
    changes = weight_changes(base("llama"), adapter)
    assert weight_changes(tmp_path / "base.gguf", adapter) == pytest.approx(changes, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "changes"), [("q_proj", {}), ("v_proj", {"model.layers.0.self_attn.v_proj.weight": math.inf})]
)
def test_a_tensor_of_zeros_has_no_change_or_an_infinite_one(base, tmp_path, target, changes):
    """One that stayed the same was said to have changed infinitely."""
    zero = "model.layers.0.self_attn.v_proj.weight"
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    tensors[zero][...] = 0
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = LoHaConfig(r=2, target_modules=[target])  # merged by PEFT: all tensors are compared
    adapter = save_random_adapter(folder, config, tmp_path / "loha")
    found = weight_changes(folder, adapter)
    assert {name: change for name, change in found.items() if name == zero} == changes
    assert len(found) == 2
