"""End to end: a converted model has the logits of transformers."""

import pytest
import torch
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.models.embedded import embedded
from thirteen.runtime.engine.engine import Engine
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "Natalia sold clips to 48 of her friends in April, and half as many in May: 48 / 2 = 24.\n#### 72"


@pytest.mark.parametrize("name", ["llama long", "qwen2", pytest.param(None, marks=pytest.mark.exhaustive)])
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
