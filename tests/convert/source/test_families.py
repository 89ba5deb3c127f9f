"""Each family's names, order and computation equal those of transformers and of llama.cpp."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.convert.source.architecture import tensor_specs
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.source.families import CLASSES, module_order
from thirteen.convert.source.model_config import from_config
from thirteen.files.gguf.header import read_header
from thirteen.files.json_file import read_json
from transformers import AutoModelForCausalLM

from ...checkpoints import FAMILIES, VOCAB, llama, qwen2, save_model
from ...llama_cpp_logits import logits

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(13).integers(0, 256, 96).tolist()  # more than any window here


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return cache(lambda name: save_model(tmp_path_factory.mktemp("base") / "base", FAMILIES[name]()))


@cache
def in_transformers(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Mean KL divergence of the predictions, in nats."""
    p, q = (torch.from_numpy(one).double().log_softmax(-1) for one in (expected, found))
    return float((p.exp() * (p - q)).sum(-1).mean())


CONFIGS = FAMILIES | {
    "llama, untied": partial(llama, tie_word_embeddings=False),
    "llama, eleven layers": partial(llama, num_hidden_layers=11),
    "qwen2, tied": partial(qwen2, tie_word_embeddings=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_names_and_order_are_those_of_transformers_and_llama_cpp(name):
    model = AutoModelForCausalLM.from_config(CONFIGS[name]())
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    architecture = from_config(config, "config.json")
    specs, parameters = tensor_specs(architecture), dict(model.named_parameters())  # tied weights once
    assert list(specs) == list(parameters)
    shapes = {name: tuple(size for size in one.shape if size > 1) for name, one in parameters.items()}
    assert {spec.source: spec.shape for spec in specs.values()} == shapes
    kind = next(kind for kind, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture.name)
    names = gguf.get_tensor_name_map(kind, architecture.layers)
    expected = {n: names.get_name(n, (".weight", ".bias")) for n in parameters}
    assert {spec.source: spec.target for spec in specs.values()} == expected
    modules = [n for n, m in model.named_modules() if list(m.parameters(recurse=False))]
    assert sorted(modules, key=module_order) == modules
    assert type(model).__name__ in CLASSES


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_computes_what_transformers_does(name, checkpoint, tmp_path):
    folder, file = checkpoint(name), tmp_path / "base.gguf"
    convert(Recipe(folder, file, Uniform("F32")))
    with torch.no_grad():
        expected = in_transformers(folder)(torch.tensor([TOKENS])).logits[0].numpy()
    tokens = TOKENS[: open_checkpoint(folder).architecture.context]
    found = logits(file, tokens)
    assert found.shape == (len(tokens), VOCAB)
    assert divergence(expected[: len(tokens)], found) < 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gguf_is_read_back(name, checkpoint, tmp_path):
    folder, file = checkpoint(name), tmp_path / "base.gguf"
    convert(Recipe(folder, file, Uniform("F32")))
    one, other = open_checkpoint(folder), open_checkpoint(file)
    assert other.specs == one.specs
    for tensor, spec in one.specs.items():
        rows = spec.shape[0]
        np.testing.assert_array_equal(other.rows(tensor, 0, rows), one.rows(tensor, 0, rows), tensor)
    again = tmp_path / "again.gguf"
    convert(Recipe(file, again, Uniform("F32")))
    first, second = read_header(file), read_header(again)
    prefix = f"{one.architecture.name}."
    assert {k: v for k, v in second.metadata.items() if k.startswith(prefix)} == {
        k: v for k, v in first.metadata.items() if k.startswith(prefix)
    }
    assert read_json(folder / "config.json")["architectures"][0] in CLASSES
