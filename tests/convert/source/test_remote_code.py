"""Checkpoints whose settings name code are refused before another library reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from thirteen.convert.source.remote_code import refuse_code
from thirteen.errors import FileError

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
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"_new_in_a_later_version_internal": 1}, "_new_in_a_later_version_internal"),
        ({"attn_implementation": "someone/kernel"}, "attn_implementation"),
        ({"_attn_implementation": {"text_config": "someone/kernel@v1"}}, "_attn_implementation"),
        ({"list": [[{"deep": {"auto_map": {"AutoModel": "a.B"}}}]]}, "auto_map"),
        ({"megatron_config": {"x": 1}, "megatron_core": "evil"}, "megatron_config"),
    ],
)
def test_settings_that_name_code_are_refused_in_every_file(settings, key, tmp_path):
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "adapter_config.json"):
        folder = tmp_path / name.removesuffix(".json")
        folder.mkdir()
        write(folder, LLAMA | settings, name)
        with pytest.raises(FileError, match=rf"{name}: '{key}' names code") as raised:
            refuse_code(folder)
        assert "\n" not in str(raised.value)


def test_ordinary_settings_and_missing_files_are_accepted(tmp_path):
    refuse_code(tmp_path)
    write(tmp_path, LLAMA)
    write(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": None}, "tokenizer_config.json")
    lora = {
        "peft_type": "LORA",
        "auto_mapping": None,
        "megatron_config": None,
        "megatron_core": "megatron.core",
    }
    write(tmp_path, lora, "adapter_config.json")
    refuse_code(tmp_path)
