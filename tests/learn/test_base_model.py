"""Bases that training loads, and those that it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.errors import FileError
from thirteen.learn.base_model import load_base_model, pre_tokenizer
from thirteen.learn.examples import encode_example, held_out_losses
from thirteen.models.rows import TrainingRow

from .. import checkpoints
from ..checkpoints import llama, qwen2, save_model
from ..runtime.conftest import write_gguf

ROWS = [
    *(TrainingRow(f"What is {n} and {n}?", f"It is {n}+{n} = {2 * n}.", str(2 * n)) for n in range(2, 6)),
    TrainingRow("  12 or\n\t1234½ 漢字?", "or 't is 1,000.50 \U0001f600"),
]


def llama32() -> Any:
    return llama(rope_parameters=checkpoints.LLAMA3_ROPE)


@pytest.mark.parametrize(("config", "rules"), [(llama32, "llama"), (llama, "smollm"), (qwen2, "qwen")])
def test_a_gguf_base_equals_the_folder_that_it_was_made_from(tmp_path, config, rules, monkeypatch):
    """transformers, reading a GGUF, drops SmolLM2's and Llama 3's rules for words."""
    monkeypatch.setattr(checkpoints, "MERGES", (("1", "2"), ("3", "4"), ("12", "3"), ("'", "t"), ("o", "r")))
    folder = save_model(tmp_path / "base", config(), rules=rules)
    if rules == "llama":  # a word of the vocabulary is a token, even if no merges lead to it
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["merges"].pop()
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    convert(Recipe(folder, tmp_path / "base.gguf", Uniform("F32")))
    (model, tokenizer), (same, twin) = load_base_model(folder), load_base_model(tmp_path / "base.gguf")
    examples = [encode_example(tokenizer, row) for row in ROWS]
    assert examples == [encode_example(twin, row) for row in ROWS]
    assert held_out_losses(model, examples) == pytest.approx(held_out_losses(same, examples), rel=1e-5)


@pytest.fixture
def folder(base, tmp_path) -> Path:
    """A copy of a base."""
    return shutil.copytree(base("llama"), tmp_path / "base")


def change_json(path: Path, **changes: Any) -> None:
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def without_safetensors(folder: Path) -> None:
    """Pickled weights were loaded, and were no part of the hash that a checkpoint is checked by."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change_json(folder / "tokenizer_config.json", chat_template=None)


def with_code(folder: Path) -> None:
    change_json(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})


def with_adapter(folder: Path) -> None:
    """transformers loads it too, and it became a part of what was trained."""
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "transformers cannot load it"),
        (without_safetensors, r"no file named model\.safetensors"),
        (without_chat_template, "no chat template"),
        (with_code, r"config\.json: 'auto_map' names code"),
        (with_adapter, "transformers would load this adapter with the base"),
    ],
)
def test_a_base_that_cannot_be_trained_is_refused(folder, change, message):
    change(folder)
    with pytest.raises(FileError, match=message) as error:
        load_base_model(folder)
    assert "\n" not in str(error.value)


def test_a_gguf_with_an_unsupported_pre_tokenizer_is_refused(tmp_path):
    write_gguf(tmp_path / "base.gguf", {"tokenizer.ggml.pre": ("default", GGUFValueType.STRING, None)}, {})
    with pytest.raises(FileError, match="'default'; supported are llama-bpe, dbrx"):
        pre_tokenizer(tmp_path / "base.gguf")


def test_a_chat_template_that_rejects_a_question_is_refused(templated):
    """Jinja's TemplateError ended the command."""
    base = templated("{{ raise_exception('A system message\\nis required') }}")
    message = "base: the chat template failed: TemplateError: A system message is required"
    with pytest.raises(FileError, match=message):
        encode_example(load_base_model(base)[1], ROWS[0])
