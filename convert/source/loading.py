"""Loading by transformers and PEFT: what is refused before, silenced meanwhile, and reported after."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from ...errors import FileError, ThirteenError, install_hint
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


def check_base_folder(folder: Path) -> None:
    """Check a base's folder before transformers reads it: it would load an adapter there too."""
    refuse_code(folder)
    if (path := folder / "adapter_config.json").exists():
        raise FileError(f"{path}: transformers would load this adapter with the base: move it away")


def refuse_code(folder: Path) -> None:
    """Raise FileError if a setting in a folder names code, which a library would import and run."""
    for path in (folder / name for name in _FILES):
        if path.exists():
            for key, value in _settings(read_json(path)):
                if value and (_KEYS.fullmatch(key) or _is_hub_kernel(key, value)):
                    raise FileError(f"{path}: {key!r} names code, which is never run: remove it")


def _is_hub_kernel(key: str, value: object) -> bool:
    values = value.values() if isinstance(value, dict) else [value]
    return bool(_IMPLEMENTATION.fullmatch(key)) and any("/" in str(one) for one in values)


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    values: list[Any] = [config]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            yield from value.items()
            values += value.values()
        elif isinstance(value, list):
            values += value


def check_packages(*more: str) -> None:
    """Raise ThirteenError, before hours of work, if torch, transformers or `more` is not installed."""
    for package in ("torch", "transformers", *more):
        if find_spec(package) is None:
            raise ThirteenError(f"this needs {package}: {install_hint('train')}")


def loaded(base: Path, load: Callable[[], Any]) -> Any:
    """A part of a base, by transformers."""
    try:
        with silenced():
            return load()
    except Exception as error:  # transformers, tokenizers and gguf raise errors of many classes here
        reason = str(error).strip().split("\n")[0]
        raise FileError(f"{base}: transformers cannot load it ({reason:.200})") from error


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress the libraries' progress bars and warnings; the caller raises or checks errors."""
    from transformers.utils import logging  # noqa: PLC0415 - takes seconds to import

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
