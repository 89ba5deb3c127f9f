"""What transformers loads of a base, and its configuration of a GGUF."""
# ruff: noqa: PLC0415 - transformers takes seconds to import and comes with an extra

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import FileError, ThirteenError, install_hint
from .source.checkpoint import Checkpoint
from .source.loading import silenced
from .source.transformers_config import transformers_config


def loaded(base: Path, load: Callable[[], Any]) -> Any:
    """A part of a base, by transformers."""
    try:
        with silenced():
            return load()
    except Exception as error:  # transformers, tokenizers and gguf raise errors of many classes here
        reason = str(error).strip().split("\n")[0]
        raise FileError(f"{base}: transformers cannot load it ({reason:.200})") from error


def check_packages(*more: str) -> None:
    """Raise ThirteenError, before hours of work, if torch, transformers or `more` is not installed."""
    for package in ("torch", "transformers", *more):
        if find_spec(package) is None:
            raise ThirteenError(f"this needs {package}: {install_hint('train')}")


def new_config(base: Checkpoint) -> Any:
    """The configuration of a GGUF."""
    from transformers import AutoConfig

    fields = transformers_config(base)
    return loaded(base.path, lambda: AutoConfig.for_model(**fields))
