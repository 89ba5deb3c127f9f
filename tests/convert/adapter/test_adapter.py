"""Every setting and tensor of an adapter is applied or refused by name, never ignored.

Damages that `thirteen adapter` refuses too are in tests/cli/test_bad_input.py.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoHaConfig, LoraConfig, TinyLoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.convert.adapter.adapter import load_adapter
from thirteen.convert.convert import convert
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import FileError

from ...json_changes import Change, drop, put
from ...refusals import refused
from ..peft_adapters import save_random_adapter

TARGETS = ["q_proj", "up_proj"]
GOOD = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS),
    "dora": LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_dora=True),
    "tiny": TinyLoraConfig(u=5, r=2, weight_tying=0.5, target_modules=TARGETS, init_weights="uniform"),
    "loha": LoHaConfig(r=2, target_modules=TARGETS),
}
Q = "base_model.model.model.layers.0.self_attn.q_proj"
UP = "base_model.model.model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def good(base, tmp_path_factory):
    """Adapters of the tied Llama as PEFT saves them, keyed like GOOD."""
    return cache(
        lambda name: save_random_adapter(
            base("llama"), GOOD[name], tmp_path_factory.mktemp("adapters") / name
        )
    )


def changed(folder: Path, target: Path, *changes: Change) -> Path:
    """A copy of an adapter whose settings and tensors, which are in one object here, were changed."""
    shutil.copytree(folder, target)
    config, weights = target / "adapter_config.json", target / "adapter_model.safetensors"
    content = json.loads(config.read_text()) | load_file(weights)
    for change in changes:
        change(content)
    tensors = {key: value for key, value in content.items() if isinstance(value, np.ndarray)}
    config.write_text(json.dumps({key: value for key, value in content.items() if key not in tensors}))
    save_file(tensors, weights)
    return target


def scaled(factor: float, part: str) -> Change:
    return lambda content: content.update(
        {key: value * np.float32(factor) for key, value in content.items() if part in key}
    )


def as_initialized(base: Path) -> Change:
    """DoRA before its first step: no delta, and the norms of the base as magnitudes."""

    def reset(content: dict[str, Any]) -> None:
        checkpoint = open_checkpoint(base)
        for key, value in content.items():
            if "lora_B" in key:
                content[key] = np.zeros_like(value)
            if "lora_magnitude_vector" in key:
                name = key.removeprefix("base_model.model.").replace("lora_magnitude_vector", "weight")
                content[key] = np.linalg.norm(checkpoint.rows(name, 0, len(value)), axis=1)

    return reset


def without_seed(content: dict[str, Any]) -> None:
    drop(*(key for key in content if key.endswith("_P")))(content)
    content["projection_seed"] = None


REFUSED: list[tuple[str, Change, str]] = [
    ("lora", put("lora_alpha", value=0), "zero"),
    ("lora", put("alpha_pattern", value={"(?x:(.*) *!)": 4}), "too complex"),
    ("tiny", without_seed, "adapter_config.json: unexpected layout (TypeError"),
    ("lora", put(f"{Q}.base_layer.bias", value=np.ones(1, np.float32)), "bias"),
    ("tiny", drop("base_model.tinylora_v.1"), "1 trained vectors for 2"),
    ("tiny", put(f"{Q}.tinylora_P", value=np.ones((5, 3, 3), np.float32)), "(5, 3, 3)"),
    ("loha", drop(f"{Q}.hada_w1_a"), "hada_w1_a"),
    ("loha", scaled(0, "hada_w2_a"), "changes nothing"),
]


@pytest.mark.parametrize(("kind", "change", "named"), [*REFUSED, ("dora", None, "zero")])
def test_an_unsupported_adapter_is_refused_by_name(kind, change, named, base, good, tmp_path):
    folder = changed(good(kind), tmp_path / "adapter", change or as_initialized(base("llama")))
    with refused("", named, FileError) as error:
        MergedModel(open_checkpoint(base("llama")), folder)
    assert str(error.value).startswith((str(folder), "adapter: "))  # its path or its name


def test_the_projections_to_redraw_are_bounded(tmp_path):
    """An adapter of 256 KB took 8 GB."""
    module, numbers = "base_model.model.model.layers.0.mlp.up_proj", 16_385
    tensors = {f"{module}.tinylora_{part}": np.ones((64, 64), np.float32) for part in "AB"}
    save_file(
        tensors | {"base_model.tinylora_v.0": np.ones(numbers, np.float32)},
        tmp_path / "adapter_model.safetensors",
    )
    settings = {"peft_type": "TINYLORA", "u": numbers, "r": 64, "projection_seed": 1}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(FileError, match="its projections are more than 67,108,864 numbers"):
        load_adapter(tmp_path)


def test_an_output_delta_on_a_tied_base_is_refused_where_peft_would_merge_it(base, tmp_path):
    """PEFT writes it into the shared tensor, which changes the embedding too."""
    folder = save_random_adapter(
        base("llama"), LoHaConfig(r=2, target_modules=["lm_head"]), tmp_path / "adapter"
    )
    with pytest.raises(FileError, match="of a base that ties the two"):
        convert(Recipe(base("llama"), tmp_path / "model.gguf", Uniform("F32"), adapter=folder))
