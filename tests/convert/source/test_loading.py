"""Checkpoints whose settings name code are refused before another library reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from thirteen.convert.source.loading import check_base_folder, refuse_code
from thirteen.errors import FileError

from ...refusals import refused

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "_name_or_path": "meta-llama/Llama-3.2-1B",
    "_attn_implementation_autoset": True,
    "rope_scaling": {"rope_type": "llama3"},
    "attn_implementation": "flash_attention_2",
}


def write(folder: Path, config: Any, name: str = "config.json") -> Path:
    (folder / name).write_text(json.dumps(config))
    return folder


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
    with refused(write(tmp_path, LLAMA | settings, name) / name, f"'{key}' names code", FileError):
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
