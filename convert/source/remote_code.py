"""Settings of a checkpoint that name code, which transformers or PEFT would import or download and run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FileError
from ...files.json_file import read_json

_FILES = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "adapter_config.json"),
)
# `auto_map` and `custom_pipelines` name classes in Python files of the checkpoint. `_…_internal` are
# attributes of transformers' own, through which CVE-2026-4372 loaded code. With a `megatron_config`, PEFT
# imports the module that `megatron_core` names.
_KEYS = re.compile(
    r"auto_map|custom_pipelines|custom_generate|trust_remote_code|_.*_internal|megatron_config"
)
# A kernel from the hub, as in "kernels-community/flash-attn"; transformers' own ones are single words.
_IMPLEMENTATION = re.compile(r".*_implementation")


def refuse_code(folder: Path) -> None:
    """Check the JSON files of a checkpoint or an adapter, before another library reads the folder.

    Raises:
        FileError: a setting names code, or a file is not a JSON object.
    """
    for path in (folder / name for name in _FILES):
        if path.exists():
            for key, value in _settings(read_json(path)):
                if value and (_KEYS.fullmatch(key) or _is_hub_kernel(key, value)):
                    raise FileError(f"{path}: {key!r} names code, which is never run: remove it")


def _is_hub_kernel(key: str, value: object) -> bool:
    values = value.values() if isinstance(value, dict) else [value]
    return bool(_IMPLEMENTATION.fullmatch(key)) and any("/" in str(one) for one in values)


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys and values, also of nested objects."""
    values: list[Any] = [config]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            yield from value.items()
            values += value.values()
        elif isinstance(value, list):
            values += value
