"""Bases and outputs that `train` refuses: one line, exit status 2, and no folder left behind."""

import json
import shutil

import pytest
from thirteen.errors import CheckpointError
from thirteen.learn.base_model import attach_adapter, load_base_model
from thirteen.learn.recipe import RECIPES

from ..checkpoints import save_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [{"question": f"What is {n} and {n}?", "solution": f"{2 * n}", "answer": 2 * n} for n in range(6)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def refused(thirteen, data, tmp_path):
    """Run `train` and return its error."""

    def run(base, *flags, out=tmp_path / "out"):
        done = thirteen("train", base, "--data", data, "-o", out, "--held-out", 2, *flags)
        assert done.status == 2 and done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr, done
        return done.stderr.splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A base without modules of the adapted names."""
    from transformers import GPT2Config

    config = GPT2Config(vocab_size=272, n_embd=16, n_layer=1, n_head=2, n_positions=256)
    return save_model(tmp_path_factory.mktemp("gpt2") / "base", config, rules="llama")


@pytest.mark.parametrize("kind", ["lora", "tinylora"])
def test_a_base_without_the_adapted_modules_is_refused(gpt2, kind):
    """PEFT's ValueError ended the command."""
    with pytest.raises(CheckpointError, match=r"PEFT cannot adapt the base: Target modules .* not found"):
        attach_adapter(load_base_model(gpt2)[0], RECIPES[kind])


def test_it_leaves_no_folder(refused, gpt2, tmp_path):
    assert refused(gpt2).startswith("error: PEFT cannot adapt the base: Target modules {")
    assert not (tmp_path / "out").exists()


def test_a_chat_template_that_rejects_a_question_is_refused(refused, templated, tmp_path):
    """Jinja's TemplateError ended the command."""
    base = templated("{{ raise_exception('A system message\\nis required') }}")
    assert refused(base) == (
        "error: the chat template of the base failed: TemplateError: A system message is required"
    )
    assert not (tmp_path / "out").exists()


def test_a_base_without_safetensors_is_refused(refused, base, tmp_path):
    """Pickled weights were loaded, and were no part of the hash that a checkpoint is checked by."""
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(base("llama"), tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    load_base_model(folder)
    (folder / "model.safetensors").unlink()
    assert "no file named model.safetensors" in refused(folder)
    assert not (tmp_path / "out").exists()


def test_an_adapter_beside_the_base_is_refused(refused, base, tmp_path):
    """transformers loads it too, and it became a part of what was trained."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "adapter_config.json").write_text("{}")
    assert "transformers would load this adapter with the base" in refused(folder)


def test_the_folder_of_the_base_is_no_output(refused, base, tmp_path):
    """The adapter in it became a part of the base."""
    folder = shutil.copytree(base("llama"), tmp_path / "base")
    (folder / "model.gguf").touch()
    before = sorted(folder.iterdir())
    for given in (folder, folder / "model.gguf"):
        assert f"--output {folder}: it is the folder of the base" in refused(given, out=folder)
    assert sorted(folder.iterdir()) == before


def test_a_readme_that_is_no_card_is_not_overwritten(refused, thirteen, base, data, tmp_path):
    (tmp_path / "README.md").write_text("A project.")
    line = refused(base("llama"), out=tmp_path)
    assert line.startswith(f"error: {tmp_path / 'README.md'}: is not of an adapter, and would be overwr")
    assert (tmp_path / "README.md").read_text() == "A project."
    out = tmp_path / "out"
    for _ in range(2):  # the second replaces the first
        done = thirteen("train", base("llama"), "--data", data, "-o", out, "--held-out", 2, "--threads", 1)
        assert done.status == 0, done
