"""End to end: a converted model has the logits of transformers; a merged adapter equals a run-time LoRA."""

import gguf
import numpy as np
import pytest
import torch
from thirteen.convert.adapter.export import export_adapter
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine
from transformers import AutoModelForCausalLM, AutoTokenizer

from .convert.peft_adapters import save_random_adapter
from .convert.test_merge import lora, tiny

TEXT = "Natalia sold clips to 48 of her friends in April, and half as many in May: 48 / 2 = 24.\n#### 72"


@pytest.mark.parametrize(
    "name", ["llama", "llama long", "qwen2", pytest.param(None, marks=pytest.mark.exhaustive)]
)
def test_a_model_in_f32_has_the_logits_of_transformers(name, base, tmp_path):
    """The last is SmolLM2, which transformers reads from the GGUF file."""
    source = base(name) if name else embedded()
    folder, options = (source, {}) if name else (source.parent, {"gguf_file": source.name})
    convert(Recipe(source, tmp_path / "f32.gguf", Uniform("F32")))
    tokens = AutoTokenizer.from_pretrained(folder, **options)(TEXT)["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with Engine(tmp_path / "f32.gguf", context=128, slots=1) as engine, torch.no_grad():
        expected, actual = (
            torch.log_softmax(torch.as_tensor(logits).double(), -1)
            for logits in (model(torch.tensor([tokens])).logits[0], engine.logits(tokens))
        )
    divergence = (expected.exp() * (expected - actual)).sum(-1)
    assert divergence.mean() < 1e-9
    assert torch.equal(expected.argmax(-1), actual.argmax(-1))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("llama", lora(3, 12, rank_pattern={"q_proj": 5})),
        ("llama", tiny(13, 2, 1.0)),
        ("qwen2", lora(2, 8, use_rslora=True)),
        ("qwen2", tiny(5, 2, 0.5, save_projection=False)),
    ],
)
def test_merged_adapter_equals_runtime_lora(name, config, base, tmp_path):
    adapter = save_random_adapter(base(name), config, tmp_path / "adapter")
    plain, merged, lora_file = (tmp_path / f"{part}.gguf" for part in ("plain", "merged", "lora"))
    convert(Recipe(base(name), plain, Uniform("F32")))
    convert(Recipe(base(name), merged, Uniform("F32"), adapter=adapter))
    export_adapter(adapter, base(name), lora_file)
    tokens = list(range(5, 25))
    with (
        Engine(plain) as base_engine,
        Engine(plain, adapter=lora_file) as lora_engine,
        Engine(merged) as merge_engine,
    ):
        engines = (base_engine, lora_engine, merge_engine)
        unadapted, with_lora, fused = (engine.logits(tokens) for engine in engines)
    effect = np.abs(fused - unadapted).max()
    assert effect > 1e-2
    assert np.abs(fused - with_lora).max() < 1e-3 * effect


def test_exported_adapter_has_the_layout_of_llama_cpp(base, tmp_path):
    adapter = save_random_adapter(base("llama"), lora(2, 8, targets=["q_proj"]), tmp_path / "adapter")
    export_adapter(adapter, base("llama"), tmp_path / "lora.gguf")
    reader = gguf.GGUFReader(tmp_path / "lora.gguf")
    values = {key: field.contents() for key, field in reader.fields.items()}
    assert values["general.type"] == "adapter"
    assert values["general.architecture"] == "llama"
    assert values["adapter.type"] == "lora"
    assert values["adapter.lora.alpha"] == 2  # the rank, because B includes the scale
    names = {tensor.name for tensor in reader.tensors}
    assert "blk.0.attn_q.weight.lora_a" in names
    assert len(names) == 2 * len([name for name in names if name.endswith(".lora_b")])
