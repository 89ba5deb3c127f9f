"""The architecture that a checkpoint's config.json describes, by the rules of transformers' classes."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ...errors import FileError, one_line, shorten
from ...files.gguf.model_shape import MAX_LAYERS, ModelShape
from .architecture import Architecture, check
from .config_values import count, flag, number
from .families import CLASSES, Family
from .rope import find_rope, read_scaling

# Keys that change the computation where they are true or a number, unless their family has a rule for them.
_REFUSED = (
    *("attention_bias", "mlp_bias", "conv_bias", "use_bidirectional_attention"),
    *("attn_logit_softcapping", "final_logit_softcapping"),
)
# Words of keys that change a computation. A key with one of them that is not in _KNOWN is refused.
_WORDS = (
    *("act", "attn", "attention", "bias", "conv", "expert", "head", "layer", "mlp", "moe", "multiplier"),
    *("norm", "rope", "rotary", "scale", "scaling", "softcap", "window"),
)
_KNOWN = {
    *("attention_dropout", "attention_multiplier", "conv_L_cache", "embedding_multiplier", "full_attn_idxs"),
    *("head_dim", "hidden_act", "hidden_activation", "layer_types", "logits_scaling", "max_window_layers"),
    *("no_rope_layer_interval", "no_rope_layers", "norm_eps", "num_attention_heads", "num_heads"),
    *("num_hidden_layers", "num_key_value_heads", "query_pre_attn_scalar", "residual_multiplier"),
    *("partial_rotary_factor", "rms_norm_eps", "rope_local_base_freq", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "sliding_window_pattern", "use_sliding_window", "window_theta"),
    # What transformers' classes of these families do not read.
    *("activation_dropout", "attention_probs_dropout_prob", "attn_implementation", "cache_implementation"),
    *("full_attn_mod", "head_dim_original", "layer_norm_eps", "layer_norm_epsilon", "output_attentions"),
    *("pruned_heads", "rope_interleaved", "use_flash_attn"),
    *("block_ffn_dim_multiplier", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale"),
    *("conv_dim", "conv_dim_out", "conv_use_xavier_init"),
}
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu"}


def from_config(config: Mapping[str, Any], where: str) -> Architecture:
    """Read the architecture from a checkpoint's config.json; `where` names it in errors.

    Raises:
        FileError: the architecture is not supported, a value is missing or out of range, or a key changes the
            computation in a way that is not known here.
    """
    family = _family(config, where)
    layers = count(config, "num_hidden_layers", where, most=MAX_LAYERS)
    config = _normalized(config, family, where)
    _check_keys(config, family, where)
    rope = find_rope(config, where)
    heads = count(config, "num_attention_heads", where)
    hidden = count(config, "hidden_size", where)
    head_dim = count(config, "head_dim", where, hidden // heads)
    context = count(config, "max_position_embeddings", where)
    width = int(head_dim * number({**config, **rope}, "partial_rotary_factor", where, 1.0))
    shape = ModelShape(
        layers=layers,
        hidden=hidden,
        ffn=count(config, "intermediate_size", where),
        heads=heads,
        kv_heads=count(config, "num_key_value_heads", where, heads),
        head_dim=head_dim,
        vocab=count(config, "vocab_size", where),
        context=context,
    )
    found = {
        **_scales(config, where),
        **_layer_types(config, layers, where),
        **read_scaling(rope, context, width, where),
    }
    if width != head_dim:
        found["rope_width"] = width
    if found.get("windowed") and family.window_pattern is None:
        # Without windows, a context of one window computes the same.
        shape = replace(shape, context=min(context, found["window"]))
        found = {key: value for key, value in found.items() if not key.startswith("window")}
    biases = (kinds for key, kinds in family.biases.items() if flag(config, key, where))
    architecture = Architecture(
        **asdict(shape),
        name=family.name,
        rms_eps=number(config, "rms_norm_eps", where),
        rope_theta=number({**config, **rope}, "rope_theta", where, 10000.0),
        tied=flag(config, "tie_word_embeddings", where),
        biased=(*family.biased, *(kind for kinds in biases for kind in kinds)),
        **(dict(family.implied(shape)) | found),
    )
    check(architecture, where)
    return architecture


def _family(config: Mapping[str, Any], where: str) -> Family:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in CLASSES:
        raise FileError(
            f"{where}: the architecture {shorten(name)} cannot be converted; a GGUF of it may run as it is; "
            f"supported: {', '.join(CLASSES)}"
        )
    if (weights := config.get("transformers_weights")) is not None:
        raise FileError(f"{where}: transformers_weights is {shorten(weights)}, which is not supported")
    if config.get("quantization_config") is not None:
        raise FileError(f"{where}: the checkpoint is quantized; use its original in BF16, F16 or F32")
    return CLASSES[name]


def _normalized(config: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    """The config under the names of Llama's."""
    try:
        return {**config, **family.normalize(config)}
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FileError(f"{where}: not a config of {family.name}: {one_line(error)}") from error


def _check_keys(config: Mapping[str, Any], family: Family, where: str) -> None:
    """Refuse keys that change the computation in a way that the family does not have."""
    for key, value in config.items():
        if value is None or value is False or key in family.biases or key.startswith("_"):
            continue
        unknown = key not in _KNOWN and any(word in key.lower() for word in _WORDS)
        if key in _REFUSED or (unknown and not isinstance(value, str)):
            raise FileError(f"{where}: {shorten(key)} is {shorten(value)}, not supported for {family.name}")
    act = config.get("hidden_act", "silu")
    if _ACTIVATIONS.get(act if isinstance(act, str) else "") != family.activation:
        raise FileError(f"{where}: hidden_act is {shorten(act)}; {family.name} has {family.activation}")


def _scales(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The constants that a config gives as numbers."""
    keys = {
        "embedding_multiplier": "embedding_scale",
        "residual_multiplier": "residual_scale",
        "attention_multiplier": "attention_scale",
        "logits_scaling": "logit_scale",
        "window_theta": "window_theta",
    }
    found = {field: number(config, key, where) for key, field in keys.items() if config.get(key) is not None}
    if config.get("conv_L_cache") is not None:
        found["conv_width"] = count(config, "conv_L_cache", where)
    if config.get("query_pre_attn_scalar") is not None:
        found["attention_scale"] = number(config, "query_pre_attn_scalar", where) ** -0.5
    return found


def _layer_types(config: Mapping[str, Any], layers: int, where: str) -> dict[str, Any]:
    """The layers that have a window, a convolution or no RoPE."""
    types = _list(config, "layer_types", layers, where)
    found: dict[str, Any] = {}
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window is not None:
        first = count(config, "max_window_layers", where) if config.get("max_window_layers") else 0
        types = types or [
            "sliding_attention" if layer >= first else "full_attention" for layer in range(layers)
        ]
    elif flag(config, "use_sliding_window", where):
        raise FileError(f"{where}: use_sliding_window is true, but there is no sliding_window")
    for kind, field in (("sliding_attention", "windowed"), ("conv", "convolved")):
        if chosen := tuple(layer for layer, type_ in enumerate(types) if type_ == kind):
            found[field] = chosen
    if unknown := set(map(str, types)) - {"full_attention", "sliding_attention", "conv"}:
        raise FileError(f"{where}: layer_types has {shorten(min(unknown))}, which is not supported")
    if "windowed" in found:
        found["window"] = count(config, "sliding_window", where)
    if rotated := _list(config, "no_rope_layers", layers, where):
        found["unrotated"] = tuple(layer for layer, used in enumerate(rotated) if not used)
    return found


def _list(config: Mapping[str, Any], key: str, length: int, where: str) -> list[Any]:
    """A list with an entry for each layer; empty where there is none."""
    value = config.get(key) or []
    if not isinstance(value, list) or (value and len(value) != length):
        raise FileError(f"{where}: {key} is {shorten(value)}, not a list of {length} layers")
    return value
