"""Adapters of all families: merged as by PEFT, and applied at run time as by PEFT."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, TinyLoraConfig
from thirteen.convert.adapter.basis import target_modules
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.convert import convert
from thirteen.convert.merged_model import MergedModel
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint

from ...checkpoints import FAMILIES
from ...llama_cpp_logits import logits
from ..peft_adapters import load, peft_merged, save_random_adapter

pytestmark = pytest.mark.torch
RARE = pytest.mark.exhaustive
TOKENS = np.random.default_rng(7).integers(0, 256, 40).tolist()


def kinds(targets: list[str]) -> dict[str, PeftConfig]:
    tiny = TinyLoraConfig(
        u=13, r=2, weight_tying=1.0, target_modules=targets, init_weights="uniform", save_projection=False
    )
    return {
        "lora": LoraConfig(r=3, lora_alpha=6, target_modules=targets),
        "dora with rslora": LoraConfig(
            r=2, lora_alpha=6, target_modules=targets, use_dora=True, use_rslora=True
        ),
        "tinylora, redrawn": tiny,
    }


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["lora", "tinylora, redrawn", pytest.param("dora with rslora", marks=RARE)])
def test_a_merge_equals_pefts(name, kind, base, tmp_path):
    base = open_checkpoint(base(name))
    config = kinds(base.architecture.family.targets)[kind]
    step = 1.0 if isinstance(config, TinyLoraConfig) else 0.2
    folder = save_random_adapter(base.path, config, tmp_path / "adapter", step=step)
    model, expected = MergedModel(base, folder), peft_merged(base.path, folder)
    assert set(model.deltas) == {f"{module}.weight" for module in target_modules(base)}
    for tensor, spec in base.specs.items():
        rows, merged = model.rows(tensor, 0, spec.shape[0]), expected[tensor].reshape(spec.shape)
        assert np.linalg.norm(rows - spec.offset - merged) <= 1e-6 * np.linalg.norm(merged), tensor


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "lora") for name in FAMILIES), ("llama", "tinylora, redrawn")]
)
def test_a_run_time_adapter_computes_what_peft_does(name, kind, base, tmp_path):
    base = base(name)
    config = kinds(open_checkpoint(base).architecture.family.targets)[kind]
    folder = save_random_adapter(base, config, tmp_path / "adapter", step=0.1)
    file, lora = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    convert(Recipe(base, file, Uniform("F32")))
    export_adapter(folder, base, lora)
    with torch.no_grad():
        model = PeftModel.from_pretrained(load(base), folder).eval()
        expected = model(torch.tensor([TOKENS])).logits[0].double().log_softmax(-1)
    found = torch.from_numpy(logits(file, TOKENS, lora)).double().log_softmax(-1)
    limit = 3e-6 if name == "gemma3" else 1e-6  # llama.cpp looks gelu up in a table of float16
    assert float((expected.exp() * (expected - found)).sum(-1).mean()) < limit
