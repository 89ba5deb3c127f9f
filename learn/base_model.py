"""The base model in PyTorch: float32, frozen, with the tokenizer that the runtime uses."""
# ruff: noqa: PLC0415 - torch and transformers take seconds to import and come with an extra

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..convert.adapter.adapter import refuse_adapter_beside
from ..convert.source.remote_code import refuse_code
from ..errors import CheckpointError, ThirteenError, install_hint


def load_base_model(base: Path) -> tuple[Any, Any]:
    """Load a base, a folder of safetensors or a GGUF, in float32 with frozen weights.

    Returns:
        The transformers model and its tokenizer.

    Raises:
        CheckpointError: transformers cannot load the base, a setting of it names code, an adapter is beside
            it, or its tokenizer has no chat template.
        ThirteenError: the `train` extra is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ThirteenError(f"training needs {error.name}: {install_hint('train')}") from None
    logging.disable_progress_bar()
    folder, options = (base.parent, {"gguf_file": base.name}) if base.is_file() else (base, {})
    refuse_code(folder)
    refuse_adapter_beside(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, **options)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, use_safetensors=True, **options
        )  # of a folder: the hash of a base is that of its safetensors
    except Exception as error:  # transformers, tokenizers and gguf raise errors of many classes here
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{base}: transformers cannot load it ({reason:.200})") from error
    if not tokenizer.chat_template:
        raise CheckpointError(f"{base}: the tokenizer has no chat template")
    if base.is_file():
        _fix_pre_tokenizer(base, tokenizer)
    return model.requires_grad_(False).eval(), tokenizer


def _fix_pre_tokenizer(base: Path, tokenizer: Any) -> None:
    """Split texts as the GGUF's tokenizer does.

    When it reads a GGUF, transformers drops SmolLM2's rule that each digit is a token, and keeps Qwen2's.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(base).get_field("tokenizer.ggml.pre")
    name = field.contents() if field else None
    if name == "smollm":
        rules: Any = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)
    elif name != "qwen2":
        raise CheckpointError(f"{base}: tokenizer.ggml.pre is {name!r}; train from the folder of safetensors")
