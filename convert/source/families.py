"""The families of models that can be converted: how each names its parts, and where it differs from Llama.

Everything that reads a model takes its names, its order of tensors and its constants from here. Each entry
names the class of transformers (`transformers.models.*.modeling_*`) and the graph of llama.cpp
(`src/models/*.cpp`) whose rules it holds.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

from ...errors import shorten
from ...files.gguf.model_shape import ModelShape

Values = Mapping[str, Any]

# Tensors of a GGUF that divide the frequencies of RoPE: Llama 3's scaling, and the two lists of LongRoPE.
FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_q_norm", "attn_k_norm")
INPUTS = {  # matrix -> what it multiplies in a layer
    **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_qkv", "shortconv.in_proj"), "attention_input"),
    **dict.fromkeys(("attn_output", "shortconv.out_proj"), "context"),
    **dict.fromkeys(("ffn_gate", "ffn_up"), "ffn_input"),
    "ffn_down": "ffn_hidden",
}

# Modules of a layer in the order of transformers' classes, which numbers the seeds of PEFT's TinyLoRA.
_ATTENTION = tuple(f"self_attn.{name}_proj" for name in "qkvo")
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_FFN = tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
_NORMS = ("input_layernorm", "post_attention_layernorm")
_EMBEDDING, _OUTPUT = "model.embed_tokens", "lm_head"
_LLAMA_BIASES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
_GRAPHS = {name: graph for graph, name in MODEL_ARCH_NAMES.items()}


def _nothing(_: object) -> Values:
    return {}


@dataclass(frozen=True)
class Family:
    """How the models of a family name their parts, and what their computation does unlike Llama's."""

    name: str  # `general.architecture` of a GGUF
    classes: tuple[str, ...]  # of transformers, as `architectures` in config.json names them
    # Modules of a layer, in transformers' order. The parts that are there say how it computes: norms before
    # or after a block, norms of heads, fused matrices.
    modules: tuple[str, ...] = (*_ATTENTION, *_FFN, *_NORMS)
    norm: str = "model.norm"  # the module before the output
    permuted: bool = False  # whether GGUF has the rows of q and k in another order (LLAMA_ROPE_TYPE_NORM)
    wide_norms: bool = False  # whether the norms of q and k are over all heads at once
    norm_offset: float = 0.0  # what the graph has already added to the weights of all norms
    activation: str = "silu"  # or gelu (by tanh)
    biased: tuple[str, ...] = ()  # matrices that always have a bias
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # that have one if a key is true
    tied: bool | None = None  # the only value that the graph has for tied embeddings; None for both
    # The constants of Architecture that the graph reads from metadata. A constant that it does not read must
    # have the value that the graph has anyway: its default, or the implied one, which follows from the shape.
    reads: tuple[str, ...] = ()
    implied: Callable[[ModelShape], Values] = _nothing
    divisors: tuple[str, ...] = ()  # of the frequencies of RoPE, which the graph reads as tensors
    # llama.cpp's default for layers with a sliding window: all but every n-th. None where the graph has no
    # windows: then the context ends where the window does.
    window_pattern: int | None = None
    defaults: Values = field(default_factory=dict)  # entries of a config where they are missing
    normalize: Callable[[Values], Values] = _nothing  # entries of a config under the names of Llama's

    @cached_property
    def layer(self) -> dict[str, str]:
        """Modules of a layer, in transformers' order, and their names in a GGUF."""
        names = self._names("model.layers.0.", *self.modules)
        return {module: name.removeprefix("blk.0.") for module, name in names.items()}

    @cached_property
    def outside(self) -> dict[str, str]:
        """Modules outside the layers, likewise; the output only where it is not tied."""
        return self._names("", _EMBEDDING, self.norm, _OUTPUT)

    def _names(self, prefix: str, *modules: str) -> dict[str, str]:
        known = get_tensor_name_map(_GRAPHS[self.name], 1)
        return {module: str(known.get_name(prefix + module)) for module in modules}

    @property
    def targets(self) -> list[str]:
        """The last parts of the names of a layer's matrices, which adapters change by default; sorted."""
        return sorted({module.split(".")[-1] for module, kind in self.layer.items() if kind in INPUTS})

    def windowed(self, layers: int, pattern: int) -> tuple[int, ...]:
        """The layers with a sliding window, all but every `pattern`-th (llama_hparams::set_swa_pattern)."""
        return tuple(layer for layer in range(layers) if not pattern or layer % pattern < pattern - 1)


def _gemma3(config: Values) -> Values:
    """Gemma3TextConfig; transformers 5 has a `rope_parameters` for each kind of layer."""
    rope = config.get("rope_parameters") or {}
    by_layer = "full_attention" in rope
    sliding = (by_layer and rope.get("sliding_attention")) or {}
    if (kind := sliding.get("rope_type", sliding.get("type"))) not in (None, "default"):
        raise ValueError(f"rope_type of sliding_attention is {shorten(kind)}; that of llama.cpp is default")
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    types = [
        "full_attention" if (layer + 1) % pattern == 0 else "sliding_attention"
        for layer in range(config["num_hidden_layers"])
    ]
    return {
        "hidden_act": config["hidden_activation"],
        "window_theta": sliding.get("rope_theta", config["rope_local_base_freq"]),
        "rope_parameters": rope.get("full_attention") or {} if by_layer else rope,
        "layer_types": config.get("layer_types") or types,
    }


def _gemma3_constants(shape: ModelShape) -> Values:
    scaled = shape.hidden // shape.heads if shape.layers == 62 else shape.head_dim  # the 27B
    return {"embedding_scale": math.sqrt(shape.hidden), "attention_scale": scaled**-0.5}


def _smollm3(config: Values) -> Values:
    layers, interval = config["num_hidden_layers"], config["no_rope_layer_interval"]
    rotated = [int((layer + 1) % interval != 0) for layer in range(layers)]
    return {"no_rope_layers": config.get("no_rope_layers") or rotated}


def _phi3(config: Values) -> Values:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) not in ("longrope", "su", "yarn"):
        return {}
    original = config.get("original_max_position_embeddings", 4096)
    long = {"rope_type": "longrope", "original_max_position_embeddings": original}
    return {"rope_scaling": None, "rope_parameters": {**rope, **long}}


def _lfm2(config: Values) -> Values:
    """Lfm2Config, with the width that Lfm2MLP makes of its own."""
    ffn, factor = config.get("block_ff_dim", config["intermediate_size"]), config["block_ffn_dim_multiplier"]
    if config["block_auto_adjust_ff_dim"]:
        ffn = int((1.0 if factor is None else factor) * int(2 * ffn / 3))
        ffn += -ffn % config["block_multiple_of"]
    attention = config.get("full_attn_idxs")
    types = [
        "full_attention" if attention is None or layer in attention else "conv"
        for layer in range(config["num_hidden_layers"])
    ]
    return {
        "intermediate_size": ffn,
        "rms_norm_eps": config["norm_eps"],
        "layer_types": config.get("layer_types") or types,
        "tie_word_embeddings": config.get("tie_embedding", config.get("tie_word_embeddings", True)),
    }


_ALL = (
    # LlamaForCausalLM and, beyond its window, MistralForCausalLM; llama.cpp.
    Family(
        "llama",
        ("LlamaForCausalLM", "MistralForCausalLM"),
        permuted=True,
        biases=_LLAMA_BIASES,
        divisors=(FACTORS,),
    ),
    # Qwen2ForCausalLM; qwen2.cpp.
    Family("qwen2", ("Qwen2ForCausalLM",), biased=("attn_q", "attn_k", "attn_v")),
    # Qwen3ForCausalLM norms each head of q and k; qwen3.cpp.
    Family(
        "qwen3",
        ("Qwen3ForCausalLM",),
        modules=(*_ATTENTION, *_HEAD_NORMS, *_FFN, *_NORMS),
        defaults={"head_dim": 128},
    ),
    # Gemma3ForCausalLM multiplies by 1 + weight in its norms, which are also after the blocks; gemma3.cpp.
    Family(
        "gemma3",
        ("Gemma3ForCausalLM",),
        modules=(
            *(*_ATTENTION, *_HEAD_NORMS, *_FFN, *_NORMS),
            *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        ),
        norm_offset=1.0,
        activation="gelu",
        reads=("window", "windowed", "window_theta"),
        implied=_gemma3_constants,
        window_pattern=6,
        defaults={
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
        normalize=_gemma3,
    ),
    # SmolLM3ForCausalLM has no RoPE in every fourth layer, which smollm3.cpp holds as a constant.
    Family(
        "smollm3",
        ("SmolLM3ForCausalLM",),
        permuted=True,
        implied=lambda shape: {"unrotated": tuple(range(3, shape.layers, 4))},
        defaults={"rope_theta": 2e6, "no_rope_layer_interval": 4, "tie_word_embeddings": True},
        normalize=_smollm3,
    ),
    # GraniteForCausalLM has four scales; granite.cpp.
    Family(
        "granite",
        ("GraniteForCausalLM",),
        permuted=True,
        biases=_LLAMA_BIASES,
        reads=("embedding_scale", "residual_scale", "attention_scale", "logit_scale"),
        divisors=(FACTORS,),
        defaults={"attention_multiplier": 1.0},
    ),
    # Phi3ForCausalLM, which is Phi-4-mini's class too, has fused matrices; phi3.cpp.
    Family(
        "phi3",
        ("Phi3ForCausalLM",),
        modules=(*("self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"), *_NORMS),
        reads=("rope_width", "rope_original", "rope_attention_factor"),
        divisors=(LONG_FACTORS, SHORT_FACTORS),
        normalize=_phi3,
    ),
    # Olmo2ForCausalLM norms the outputs of its blocks, and q and k as a whole; olmo2.cpp.
    Family(
        "olmo2",
        ("Olmo2ForCausalLM",),
        modules=(
            *(*_ATTENTION, *_HEAD_NORMS, *_FFN),
            *("post_attention_layernorm", "post_feedforward_layernorm"),
        ),
        wide_norms=True,
        tied=False,
    ),
    # Lfm2ForCausalLM has convolutions in most layers; lfm2.cpp.
    Family(
        "lfm2",
        ("Lfm2ForCausalLM",),
        modules=(
            *(*_ATTENTION[:3], "self_attn.out_proj", "self_attn.q_layernorm", "self_attn.k_layernorm"),
            *("conv.conv", "conv.in_proj", "conv.out_proj"),
            *("feed_forward.w1", "feed_forward.w3", "feed_forward.w2", "operator_norm", "ffn_norm"),
        ),
        norm="model.embedding_norm",
        reads=("convolved", "conv_width"),
        defaults={
            "intermediate_size": 12288,
            "block_multiple_of": 256,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": True,
            "norm_eps": 1e-5,
            "rope_theta": 1e6,
            "conv_L_cache": 3,
        },
        normalize=_lfm2,
    ),
)
FAMILIES = {family.name: family for family in _ALL}
CLASSES = {name: family for family in _ALL for name in family.classes}


# An order of all modules of layers that is that of each family.
_SORTER = TopologicalSorter[str]()
for _family in _ALL:
    for _before, _after in pairwise(_family.modules):
        _SORTER.add(_after, _before)
_ORDER = {module: place for place, module in enumerate(_SORTER.static_order())}
_OUTSIDE = {name: place for family in _ALL for place, name in enumerate((_EMBEDDING, family.norm, _OUTPUT))}


def module_order(module: str) -> tuple[int, int] | None:
    """Sort key of a module in transformers' order; None if no supported model has it."""
    layer = re.fullmatch(r"model\.layers\.(\d{1,6})\.(.+)", module)
    if layer:
        return (int(layer[1]), _ORDER[layer[2]]) if layer[2] in _ORDER else None
    if module not in _OUTSIDE:
        return None
    return (-1 if module == _EMBEDDING else 1 << 20, _OUTSIDE[module])
