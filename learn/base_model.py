"""The base model in PyTorch, frozen."""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from pathlib import Path
from typing import Any

from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..convert.source.families import FACTORS
from ..convert.source.loading import check_base_folder, loaded
from ..convert.source.model_config import to_config
from ..files.received_files import check_links


def load_base_model(base: Path, *, bf16: bool = False, threads: int | None = None) -> Any:
    """Load a base, a folder of safetensors or a GGUF, with frozen weights in float32 or bfloat16.

    PyTorch computes with `threads` from now on, if they are given.

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
        check_base_folder(base)
        # Without pickled weights: the hash of a base is that of its safetensors.
        options = {"local_files_only": True, "dtype": dtype, "use_safetensors": True}
        model = loaded(base, lambda: AutoModelForCausalLM.from_pretrained(str(base), **options))
    return model.requires_grad_(False).eval()


def check_base(base: Path) -> None:
    """Raise FileError, before hours of work, if transformers has no such model as a GGUF."""
    _config(open_checkpoint(base))


def _config(base: Checkpoint) -> Any:
    """The configuration of a GGUF."""
    from transformers import AutoConfig

    keys = ("bos_token_id", "eos_token_id")
    tokens = {
        key: base.tokenizer[name].value for key in keys if (name := f"tokenizer.ggml.{key}") in base.tokenizer
    }
    fields = to_config(base.architecture, base.rope_tensors, tokens, str(base.path))
    return loaded(base.path, lambda: AutoConfig.for_model(**fields))


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
    config = _config(checkpoint)
    model = loaded(base, lambda: kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype))
    if (divisors := checkpoint.rope_tensors.get(FACTORS)) is not None:
        model.model.rotary_emb.inv_freq /= torch.from_numpy(divisors)
    return model
