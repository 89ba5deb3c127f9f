"""`convert --to-safetensors` writes a folder that transformers loads as PEFT's own merge, rounded once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoraConfig, TinyLoraConfig
from thirteen.convert.convert import convert
from thirteen.convert.merged_checkpoint import merge_checkpoint
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import FileError, OutputError
from transformers import AutoModelForCausalLM

from ..checkpoints import FAMILIES
from .peft_adapters import peft_merged, save_random_adapter

LORA = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear")
DORA = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_dora=True)
TINY = TinyLoraConfig(u=13, r=2, weight_tying=1.0, target_modules=["q_proj", "up_proj"])
LOHA = LoHaConfig(r=3, alpha=4, target_modules=["q_proj", "v_proj"])


# Families whose stored tensors are others than Llama's come first.
STORED = ["llama", "gemma3", "phi3", "lfm2"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, LORA) for name in STORED),
        *(pytest.param(n, LORA, marks=pytest.mark.exhaustive) for n in FAMILIES if n not in STORED),
        *(("llama bf16 in shards", DORA), ("qwen2 f16 tied", TINY), ("qwen2 f16 tied", LOHA)),
    ],
)
def test_output_is_pefts_merge_rounded_once(name, config, base, tmp_path):
    """Gemma's norms had one more, and LFM2's kernels another shape."""
    folder = save_random_adapter(base(name), config, tmp_path / "adapter")
    report = merge_checkpoint(base(name), folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    unmerged = AutoModelForCausalLM.from_pretrained(base(name), dtype="auto").state_dict()
    expected = peft_merged(base(name), folder)
    assert merged.keys() == expected.keys()
    for tensor, array in expected.items():
        assert merged[tensor].dtype == unmerged[tensor].dtype
        rounded = torch.from_numpy(array).to(unmerged[tensor].dtype)
        # The last digits of float32 depend on the order of sums, and sometimes change the rounding.
        same = (merged[tensor] == rounded).float().mean()
        exact = merged[tensor].dtype == torch.float32
        assert exact or same > 0.999, tensor
        tolerance = {"rtol": 1e-5, "atol": 2e-6} if exact else {"rtol": 2**-7, "atol": 1e-6}
        np.testing.assert_allclose(merged[tensor].float(), rounded.float(), **tolerance)
    assert report.adapter.merged_by == ("peft" if config is LOHA else "thirteen")


def test_chat_templates_are_copied_and_an_adapter_beside_the_base_is_not(base, tmp_path):
    """transformers took the output for an adapter, and a later `convert` missed the templates."""
    source = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    (source / "adapter_config.json").write_text("{}")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("rag")
    folder = save_random_adapter(base("llama"), LORA, tmp_path / "adapter")
    merge_checkpoint(source, folder, tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    templates = open_checkpoint(tmp_path / "merged").tokenizer
    assert templates["tokenizer.chat_template.rag"].value == "rag"
    assert templates == open_checkpoint(source).tokenizer
    assert (tmp_path / "merged").stat().st_mode & 0o777 == 0o755


def test_output_folder_must_be_empty(base, tmp_path):
    folder = save_random_adapter(base("llama"), LORA, tmp_path / "adapter")
    with pytest.raises(OutputError, match="not empty"):
        merge_checkpoint(base("llama"), folder, folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    merge_checkpoint(base("llama"), folder, tmp_path / "link")  # failed after all the work
    assert (tmp_path / "empty" / "model.safetensors").exists()


def test_a_gguf_is_refused(base, tmp_path):
    folder, gguf = save_random_adapter(base("llama"), LORA, tmp_path / "adapter"), tmp_path / "base.gguf"
    convert(Recipe(base("llama"), gguf, Uniform("F32")))
    with pytest.raises(FileError, match=r"base\.gguf: a GGUF; --to-safetensors takes a base in safetensors"):
        merge_checkpoint(gguf, folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("name", ["LICENSE", "adapter/README.md"])
def test_no_file_outside_a_received_folder_is_taken_along(name, base, tmp_path):
    """`merge` copied what a link named LICENSE led to, and `convert` embedded it as a chat template."""
    (tmp_path / "secret").write_text("secret")
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    adapter = save_random_adapter(base("llama"), LORA, folder / "adapter")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match="leads outside the folder"):
        merge_checkpoint(folder, adapter, tmp_path / "merged")
    with pytest.raises(FileError, match="leads outside the folder"):
        convert(Recipe(folder, tmp_path / "model.gguf", Uniform("F32"), adapter=adapter))
    assert not (tmp_path / "merged").exists()
    assert not (tmp_path / "model.gguf").exists()
