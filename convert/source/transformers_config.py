"""The configuration of transformers for a model that is read from a GGUF: the inverse of from_config()."""

from dataclasses import replace
from typing import Any

from ...errors import FileError
from .architecture import CONSTANTS, Architecture
from .checkpoint import Checkpoint
from .loading import loaded
from .model_config import from_config
from .rope import LONG_FACTORS, SHORT_FACTORS

_TOKENS = ("bos_token_id", "eos_token_id")


def new_config(base: Checkpoint) -> Any:
    """The configuration of a GGUF."""
    from transformers import AutoConfig  # noqa: PLC0415 - takes seconds, and comes with an extra

    fields = transformers_config(base)
    return loaded(base.path, lambda: AutoConfig.for_model(**fields))


def transformers_config(base: Checkpoint) -> dict[str, Any]:
    """The entries of config.json, without RoPE scaling as in Llama 3: see Checkpoint.rope_tensors.

    Raises:
        FileError: transformers has no such model, as where biases are on some of the matrices alone.
    """
    a, tokenizer, divisors = base.architecture, base.tokenizer, base.rope_tensors
    default = {"rope_type": "default", "rope_theta": a.rope_theta}
    rope = default | ({"rope_type": "linear", "factor": a.rope_linear} if a.rope_linear != 1 else {})
    if LONG_FACTORS in divisors:
        factors = [[*map(float, divisors[name])] for name in (LONG_FACTORS, SHORT_FACTORS)]
        original = a.rope_original or a.context
        rope |= {
            **{"rope_type": "longrope", "long_factor": factors[0], "short_factor": factors[1]},
            **{"original_max_position_embeddings": original, "factor": a.context / original},
            "attention_factor": a.rope_attention_factor,
        }
    ids = {key: tokenizer[name].value for key in _TOKENS if (name := f"tokenizer.ggml.{key}") in tokenizer}
    scale = a.attention_scale or a.head_dim**-0.5
    types = [
        "sliding_attention" if layer in a.windowed else "conv" if layer in a.convolved else "full_attention"
        for layer in range(a.layers)
    ]
    config = {
        "architectures": [a.family.classes[0]],
        "model_type": a.name,
        "num_hidden_layers": a.layers,
        "hidden_size": a.hidden,
        "intermediate_size": a.ffn,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "vocab_size": a.vocab,
        "max_position_embeddings": a.context,
        "rms_norm_eps": a.rms_eps,
        "tie_word_embeddings": a.tied,
        "rope_parameters": rope,
        "pad_token_id": None,
        **ids,
        **{key: {*kinds} <= {*a.biased} for key, kinds in a.family.biases.items()},
    }
    match a.name:  # entries that the models of one family alone have
        case "gemma3":
            sliding = default | {"rope_theta": a.window_theta or a.rope_theta}
            config |= {
                "model_type": "gemma3_text",
                "rope_parameters": {"full_attention": rope, "sliding_attention": sliding},
                "query_pre_attn_scalar": round(scale**-2),
                "sliding_window": a.window,
                "layer_types": types,
            }
        case "smollm3":
            config["no_rope_layers"] = [int(layer not in a.unrotated) for layer in range(a.layers)]
        case "granite":
            values = {CONSTANTS[field][2]: getattr(a, field) for field in a.family.reads}
            config |= values | {"attention_multiplier": scale}
        case "phi3":
            config |= {
                "partial_rotary_factor": a.rotated / a.head_dim,
                "original_max_position_embeddings": a.rope_original or a.context,
            }
        case "lfm2":
            config |= {
                **{"norm_eps": a.rms_eps, "conv_L_cache": a.conv_width, "layer_types": types},
                "block_auto_adjust_ff_dim": False,
            }
    if _compared(from_config(config, str(base.path))) != _compared(a):
        raise FileError(f"{base.path}: transformers' {a.family.classes[0]} has no such model")
    return config


def _compared(a: Architecture) -> Architecture:
    """An architecture without the scaling of RoPE, which a GGUF has as tensors."""
    biased = tuple(sorted(a.biased))
    return replace(a, scaling=None, rope_original=None, rope_attention_factor=1.0, biased=biased)
