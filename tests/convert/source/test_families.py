"""Each family's names, order and computation equal those of transformers and of llama.cpp."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.architecture import tensor_specs
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.source.families import CLASSES, module_order
from thirteen.convert.source.model_config import from_config
from thirteen.convert.source.model_metadata import from_header
from thirteen.files.gguf.header import Field, read_header
from thirteen.files.gguf.model_shape import read_decoder_shape
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.mistral import MistralConfig

from ...checkpoints import FAMILIES, UNTIED, VOCAB, llama, phi3, qwen2, save_model, smollm3
from ...llama_cpp_logits import logits

pytestmark = pytest.mark.torch
TOKENS = np.random.default_rng(13).integers(0, 256, 96).tolist()  # more than any window here


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


@pytest.mark.parametrize("name", [*FAMILIES, "llama long"])
def test_llama_cpp_computes_what_transformers_does(name, base, tmp_path):
    folder, file = base(name), tmp_path / "base.gguf"
    convert(Recipe(folder, file, Uniform("F32")))
    with torch.no_grad():
        expected = in_transformers(folder)(torch.tensor([TOKENS])).logits[0].numpy()
    tokens = TOKENS[: open_checkpoint(folder).architecture.context]
    found = logits(file, tokens)
    assert found.shape == (len(tokens), VOCAB)
    assert divergence(expected[: len(tokens)], found) < 1e-6


WINDOWED: dict[str, Callable[[], PretrainedConfig]] = {
    "mistral": lambda: MistralConfig(**UNTIED, head_dim=24, sliding_window=20),
    "qwen2": lambda: qwen2(use_sliding_window=True, sliding_window=20, max_window_layers=1),
    "smollm3": lambda: smollm3(use_sliding_window=True, sliding_window=20),
    "phi3": lambda: phi3(sliding_window=20, rope_parameters=None, original_max_position_embeddings=1024),
}


@pytest.mark.parametrize("name", WINDOWED)
def test_a_context_ends_with_the_window_that_llama_cpp_does_not_compute(name, tmp_path):
    """Beyond it, the logits were others: KL 2.9 to 3.5."""
    folder, file = save_model(tmp_path / "base", WINDOWED[name]()), tmp_path / "base.gguf"
    convert(Recipe(folder, file, Uniform("F32")))
    header = read_header(file)
    assert header.metadata[f"{header.metadata['general.architecture']}.context_length"] == 20
    with torch.no_grad():
        expected = in_transformers(folder)(torch.tensor([TOKENS[:20]])).logits[0].numpy()
    assert divergence(expected, logits(file, TOKENS[:20])) < 1e-6


@pytest.mark.parametrize(("name", "context"), [("qwen2", 20), ("phi3", 20), ("gemma3", 256)])
def test_so_does_that_of_a_gguf_with_a_window(name, context, base, tmp_path):
    """Files that others convert have the window and the longer context."""
    convert(Recipe(base(name), tmp_path / "base.gguf", Uniform("F32")))
    header = read_header(tmp_path / "base.gguf")
    window = {f"{name}.attention.sliding_window": Field(20, gguf.GGUFValueType.UINT32)}
    header = replace(header, fields=header.fields | window)
    assert from_header(header).context == read_decoder_shape(header).context == context


@pytest.mark.parametrize(
    "name", [*FAMILIES, "llama untied", "llama long", "llama bf16 in shards", "qwen2 f16 tied"]
)
def test_a_gguf_is_read_back(name, base, tmp_path):
    files = tmp_path / "base.gguf", tmp_path / "again.gguf"
    for source, target in zip((base(name), files[0]), files, strict=True):
        convert(Recipe(source, target, Uniform("F32")))
    folder, file = open_checkpoint(base(name)), open_checkpoint(files[0])
    assert (file.specs, file.tokenizer) == (folder.specs, folder.tokenizer)
    assert file.rope_tensors.keys() == folder.rope_tensors.keys()
    for tensor, divisors in folder.rope_tensors.items():
        np.testing.assert_array_equal(file.rope_tensors[tensor], divisors)
    for tensor, spec in folder.specs.items():
        rows = spec.shape[0]
        for start in (0, rows // (spec.heads or 2)):  # permuted rows are read in whole heads
            found, expected = (one.rows(tensor, start, rows) for one in (file, folder))
            np.testing.assert_array_equal(found, expected, tensor)
    first, second = (read_header(one).metadata for one in files)
    prefix = f"{folder.architecture.name}."
    of_the_model = [{k: v for k, v in one.items() if k.startswith(prefix)} for one in (first, second)]
    assert of_the_model[0] == of_the_model[1]
