"""The base model in PyTorch: frozen, and a new PEFT adapter on it."""
# ruff: noqa: PLC0415 - torch, transformers and peft take seconds to import and come with an extra

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..convert.adapter.adapter import refuse_adapter_beside
from ..convert.adapter.basis import Basis
from ..convert.adapter.peft_merge import silenced
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..convert.source.families import CLASSES
from ..convert.source.pre_tokenizer import PRE_TOKENIZERS
from ..convert.source.remote_code import refuse_code
from ..convert.source.rope import FACTORS
from ..convert.source.transformers_config import transformers_config
from ..errors import FileError, ThirteenError, as_line, install_hint
from ..files.gguf.header import read_header
from ..files.received_files import check_links
from .recipe import Recipe


def load_base_model(base: Path, *, bf16: bool = False, threads: int | None = None) -> Any:
    """Load a base, a folder of safetensors or a GGUF, with frozen weights.

    Args:
        base: the folder or the file.
        bf16: hold the weights in bfloat16 instead of float32.
        threads: with which PyTorch computes from now on; by default as many as before.

    Returns:
        The transformers model.

    Raises:
        FileError: transformers cannot load the base, a setting of it names code, or an adapter is beside it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    dtype = torch.bfloat16 if bf16 else torch.float32
    if base.is_file():
        model = _load_gguf(base, dtype)
    else:
        check_links(base)
        refuse_code(base)
        refuse_adapter_beside(base)
        # Without pickled weights: the hash of a base is that of its safetensors.
        options = {"local_files_only": True, "dtype": dtype, "use_safetensors": True}
        model = _loaded(base, lambda: AutoModelForCausalLM.from_pretrained(str(base), **options))
    return model.requires_grad_(False).eval()


def check_base(base: Path) -> None:
    """Raise FileError, before hours of work, if transformers has no such model as a GGUF."""
    _new_config(open_checkpoint(base))


def _new_config(base: Checkpoint) -> Any:
    """The configuration of a GGUF."""
    from transformers import AutoConfig

    fields = transformers_config(base)
    return _loaded(base.path, lambda: AutoConfig.for_model(**fields))


def _load_gguf(base: Path, dtype: Any) -> Any:
    """Dequantize a GGUF. transformers' own loader does not know some families, and the windows of Gemma 3."""
    import torch
    import transformers

    checkpoint = open_checkpoint(base)
    weights = {
        name: torch.from_numpy(spec.to_stored(checkpoint.rows(name, 0, spec.shape[0])))
        .reshape(spec.stored_shape)
        .to(dtype)
        for name, spec in checkpoint.specs.items()
    }
    kind = getattr(transformers, checkpoint.architecture.family.classes[0])
    config = _new_config(checkpoint)
    model = _loaded(base, lambda: kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype))
    if (divisors := checkpoint.rope_tensors.get(FACTORS)) is not None:
        model.model.rotary_emb.inv_freq /= torch.from_numpy(divisors)
    return model


def _loaded(base: Path, load: Callable[[], Any]) -> Any:
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

    refuse_code(base.parent)
    refuse_adapter_beside(base.parent)
    path = {"gguf_file": base.name, "local_files_only": True}
    tokenizer = _loaded(base, lambda: AutoTokenizer.from_pretrained(str(base.parent), **path))
    _fix_pre_tokenizer(base, tokenizer)
    with silenced():
        _new_config(open_checkpoint(base)).save_pretrained(folder)
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


def adapted_modules(model: Any) -> list[str]:
    """The last parts of the names of the modules that an adapter changes."""
    return CLASSES[type(model).__name__].targets


def attach_adapter(model: Any, recipe: Recipe, basis: Basis | None = None) -> Any:
    """Wrap `model` in a new adapter, the only part that trains. The output is unchanged before training.

    Args:
        model: transformers model; it is modified in place.
        recipe: kind and shape of the adapter.
        basis: the frozen factors and projections of a TinyLoRA, which allow the trained numbers to be encoded
            as a short code; by default PEFT computes its own.

    Returns:
        The PEFT model.

    Raises:
        FileError: the basis is of another base; PEFT cannot adapt the model, as where no module has one of
            the adapted names.
    """
    from peft import LoraConfig, TinyLoraConfig, get_peft_model

    shared = {"task_type": "CAUSAL_LM", "target_modules": adapted_modules(model), "r": recipe.rank}
    if recipe.kind == "lora":
        config = LoraConfig(lora_alpha=recipe.alpha, bias="none", **shared)
    else:
        config = TinyLoraConfig(
            u=recipe.numbers,
            weight_tying=1.0,
            projection_seed=recipe.projection_seed,
            save_projection=True,
            **shared,
        )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise FileError(f"PEFT cannot adapt the base: {as_line(str(error)):.200}") from error
    if basis:
        _copy_basis(adapted, basis)
    return adapted


def _copy_basis(adapted: Any, basis: Basis) -> None:
    import torch

    modules = dict(adapted.named_modules())
    with torch.no_grad():
        for name, array in basis.tensors().items():
            module, _, part = name.rpartition(".")
            found = getattr(modules.get(module), part, {})
            shape = tuple(found["default"].shape) if "default" in found else None
            if shape != array.shape:
                raise FileError(
                    f"the basis is of {basis.origin.name}: its {name!r} is {array.shape}, the model's {shape}"
                )
            found["default"].copy_(torch.from_numpy(array))


def trained_numbers(model: Any) -> int:
    """The number of parameters that require a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
