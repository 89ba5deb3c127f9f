"""What transformers needs of a GGUF: its configuration, and its tokenizer as files."""
# ruff: noqa: PLC0415 - transformers takes seconds to import and comes with an extra

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import FileError, ThirteenError, install_hint
from ..files.gguf.header import read_header
from .source.checkpoint import Checkpoint, open_checkpoint
from .source.loading import check_base_folder, silenced
from .source.pre_tokenizer import PRE_TOKENIZERS
from .source.transformers_config import transformers_config


def loaded(base: Path, load: Callable[[], Any]) -> Any:
    """A part of a base, by transformers."""
    try:
        with silenced():
            return load()
    except Exception as error:  # transformers, tokenizers and gguf raise errors of many classes here
        reason = str(error).strip().split("\n")[0]
        raise FileError(f"{base}: transformers cannot load it ({reason:.200})") from error


def save_settings(base: Path, folder: Path) -> None:
    """Save the configuration and the tokenizer of a GGUF as files of transformers.

    Raises:
        ThirteenError: transformers cannot read its tokenizer, or is not installed.
    """
    check_packages()
    from transformers import AutoTokenizer

    check_base_folder(base.parent)
    path = {"gguf_file": base.name, "local_files_only": True}
    tokenizer = loaded(base, lambda: AutoTokenizer.from_pretrained(str(base.parent), **path))
    _fix_pre_tokenizer(base, tokenizer)
    with silenced():
        new_config(open_checkpoint(base)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def check_packages(*more: str) -> None:
    """Raise ThirteenError, before hours of work, if torch, transformers or `more` is not installed."""
    for package in ("torch", "transformers", *more):
        if find_spec(package) is None:
            raise ThirteenError(f"this needs {package}: {install_hint('train')}")


def _fix_pre_tokenizer(base: Path, tokenizer: Any) -> None:
    """Split texts as the GGUF's tokenizer does.

    When it reads a GGUF, transformers drops SmolLM2's rule that each digit is a token, Llama 3's rules for
    words, and Qwen2's normalizer.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    name = read_header(base).metadata.get("tokenizer.ggml.pre")
    if name not in PRE_TOKENIZERS.values():
        supported = ", ".join(PRE_TOKENIZERS.values())
        raise FileError(f"{base}: tokenizer.ggml.pre is {name!r}; supported are {supported}")
    normalizer, rules, ignore_merges = next(key for key, value in PRE_TOKENIZERS.items() if value == name)
    makers: dict[str, Callable[[Any], Any]] = {
        "Split": lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated"),
        "Digits": lambda individual: pre_tokenizers.Digits(individual_digits=individual),
        "ByteLevel": lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex),
    }
    backend = tokenizer.backend_tokenizer
    backend.model.ignore_merges = ignore_merges
    backend.pre_tokenizer = pre_tokenizers.Sequence([makers[kind](value) for kind, value in rules])
    if normalizer:
        backend.normalizer = normalizers.NFC()


def new_config(base: Checkpoint) -> Any:
    """The configuration of a GGUF."""
    from transformers import AutoConfig

    fields = transformers_config(base)
    return loaded(base.path, lambda: AutoConfig.for_model(**fields))
