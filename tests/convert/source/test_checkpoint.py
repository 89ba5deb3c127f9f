"""Rows of a checkpoint equal those that safetensors reads; settings that name code are refused before."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf.constants import GGUFValueType
from safetensors.torch import load_file, save_file
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.convert.source.checkpoint import open_checkpoint, quantized_types
from thirteen.convert.source.loading import check_base_folder, refuse_code
from thirteen.errors import FileError
from thirteen.files.gguf.header import STRIPPING_TOKENS, read_header

from ...checkpoints import SPECIAL
from ...json_changes import change_json, put
from ...refusals import refused
from ...runtime.conftest import write_gguf


@pytest.mark.parametrize(("type_", "tolerance"), [("BF16", 4e-3), ("Q8_0", 7e-3)])
def test_quantized_gguf_is_dequantized(type_, tolerance, base, tmp_path):
    convert(Recipe(base("llama"), tmp_path / "base.gguf", Uniform(type_)))
    file = open_checkpoint(tmp_path / "base.gguf")
    for tensor, stored in load_file(base("llama") / "model.safetensors").items():
        array = stored.numpy()
        rows = file.rows(tensor, 0, len(array))
        assert np.linalg.norm(rows - array) < tolerance * np.linalg.norm(array)
    assert quantized_types(file) == ({type_: 15} if type_.startswith("Q") else {})


def test_a_gguf_keeps_what_its_tokenizer_does_beyond_llama_cpp(base, tmp_path):
    """Of a GGUF made from it, the tokens no longer took the white space after them."""
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    change_json(folder / "tokenizer.json", put("added_tokens", -1, "rstrip", value=True))
    convert(Recipe(folder, tmp_path / "first.gguf"))
    convert(Recipe(tmp_path / "first.gguf", tmp_path / "second.gguf"))
    first, second = (read_header(tmp_path / f"{name}.gguf").fields for name in ("first", "second"))
    assert second[STRIPPING_TOKENS] == first[STRIPPING_TOKENS]
    assert first[STRIPPING_TOKENS].value == [SPECIAL[-1]]


def test_a_gguf_that_has_shrunk_is_named(base, tmp_path):
    """It ended in numpy's ValueError."""
    path = tmp_path / "base.gguf"
    convert(Recipe(base("llama"), path, Uniform("Q8_0")))
    file = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:9000])
    for read in (file.rows, file.stored_rows):
        with pytest.raises(FileError, match=r"base\.gguf: cannot read [\d,]+ items at byte"):
            read("model.embed_tokens.weight", 0, 272)


def test_a_part_of_a_split_gguf_is_named(tmp_path):
    """The parts after the first have no architecture, which the error was about."""
    path = write_gguf(tmp_path / "b.gguf", {"split.count": (2, GGUFValueType.UINT16, None)}, {})
    with pytest.raises(FileError, match=r"b.gguf: one part of 2; merge the parts first"):
        open_checkpoint(path)


def test_hash_is_that_of_the_weight_files(base):
    weights = (base("llama") / "model.safetensors").read_bytes()
    assert open_checkpoint(base("llama")).sha256() == hashlib.sha256(weights).hexdigest()
    shards = sorted(base("llama bf16 in shards").glob("*.safetensors"))
    listing = "".join(f"{hashlib.sha256(shard.read_bytes()).hexdigest()}  {shard.name}\n" for shard in shards)
    expected = hashlib.sha256(listing.encode()).hexdigest()
    assert open_checkpoint(base("llama bf16 in shards")).sha256() == expected


def test_a_weight_that_is_stored_twice_is_read_twice(base, tmp_path):
    """An output matrix that differs from a tied embedding was dropped; transformers then ties nothing."""
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(12)
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")  # transformers does not read it either
    opened = open_checkpoint(folder)
    assert opened.specs.keys() == open_checkpoint(base("llama")).specs.keys() | {"lm_head.weight"}
    assert not opened.architecture.tied


LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "_name_or_path": "meta-llama/Llama-3.2-1B",
    "_attn_implementation_autoset": True,
    "rope_scaling": {"rope_type": "llama3"},
    "attn_implementation": "flash_attention_2",
}


def write(folder: Path, config: Any, name: str = "config.json") -> None:
    (folder / name).write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}, "auto_map"),
        ({"custom_pipelines": {"x": {"impl": "evil.Pipeline"}}}, "custom_pipelines"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"_new_in_a_later_version_internal": 1}, "_new_in_a_later_version_internal"),
        ({"attn_implementation": "someone/kernel"}, "attn_implementation"),
        ({"_attn_implementation": {"text_config": "someone/kernel@v1"}}, "_attn_implementation"),
        ({"list": [[{"deep": {"auto_map": {"AutoModel": "a.B"}}}]]}, "auto_map"),
        ({"megatron_config": {"x": 1}, "megatron_core": "evil"}, "megatron_config"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "adapter_config.json"])
def test_settings_that_name_code_are_refused_in_every_file(settings, key, name, tmp_path):
    write(tmp_path, LLAMA | settings, name)
    with refused(tmp_path / name, f"'{key}' names code", FileError):
        refuse_code(tmp_path)


def test_ordinary_settings_and_missing_files_are_accepted_but_no_adapter_beside_a_base(tmp_path):
    refuse_code(tmp_path)
    write(tmp_path, LLAMA)
    write(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": None}, "tokenizer_config.json")
    check_base_folder(tmp_path)
    lora = {"peft_type": "LORA", "megatron_config": None, "megatron_core": "megatron.core"}
    write(tmp_path, lora, "adapter_config.json")
    refuse_code(tmp_path)
    with refused(tmp_path, "transformers would load this adapter with the base", FileError):
        check_base_folder(tmp_path)
