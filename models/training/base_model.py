"""A base as PyTorch trains it: in float32, its weights frozen, its tokenizer as at run time."""
# ruff: noqa: PLC0415 - torch and transformers take seconds to import and come with an extra

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ThirteenError


def load_base_model(base: Path) -> tuple[Any, Any]:
    """Load a base, a folder of safetensors or a GGUF, in float32 with frozen weights.

    Returns:
        The transformers model and its tokenizer.

    Raises:
        CheckpointError: It is neither, or its tokenizer has no chat template.
        ThirteenError: The extra that training needs is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ThirteenError(f"training needs {error.name}: pip install 'thirteen[train]'") from None
    logging.disable_progress_bar()
    is_file = base.is_file()
    place = {"gguf_file": base.name} if is_file else {}
    folder = str(base.parent if is_file else base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **place)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, **place
        )
    except Exception as error:  # transformers, tokenizers and gguf raise kinds of all sorts here
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{base}: transformers cannot load it ({reason:.200})") from error
    if not tokenizer.chat_template:
        raise CheckpointError(f"{base}: its tokenizer has no chat template")
    if is_file:
        _split_digits(base, tokenizer)
    return model.requires_grad_(False).eval(), tokenizer


def _split_digits(base: Path, tokenizer: Any) -> None:
    """Give SmolLM2's tokenizer back the rule that transformers drops from a GGUF: each digit is a token."""
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits
    from tokenizers.pre_tokenizers import Sequence as InOrder

    field = GGUFReader(base).get_field("tokenizer.ggml.pre")
    pre = field.contents() if field else None
    if pre != "smollm":
        raise CheckpointError(f"{base}: tokenizer.ggml.pre is {pre!r}; train from the folder of safetensors")
    rules: Any = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = InOrder(rules)
