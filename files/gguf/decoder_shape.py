"""Shape of a decoder of any architecture, as far as the memory that it needs depends on it.

The names of a layer's tensors say whether it keeps keys and values or a recurrent state. The sizes are those
of llama-hparams.cpp of llama.cpp.
"""

from dataclasses import dataclass
from typing import Any

from gguf.constants import GGUFValueType

from .header import Header
from .metadata import CheckedMetadata
from .model_shape import MAX_COUNT, MAX_LAYERS, Sizes, read_context

_KEYS = ("attn_k", "attn_qkv", "attn_kv_a_mqa")  # tensors of a layer that keeps keys
_STATES = ("ssm_", "shortconv.", "time_mix_")  # beginnings of the tensors of one that keeps a state


@dataclass(frozen=True)
class DecoderShape(Sizes):
    """Sizes of a decoder; of what differs by layer, the largest.

    The feed-forward network is that of all the experts that a token uses; the width of a head is that of its
    keys.

    Attributes:
        architecture: its name in llama.cpp.
        experts_used: experts of a token; 0 in a dense model.
        kv_widths: for each layer that keeps them, width of a token's keys and of its values.
        head_widths: widths of a head's keys, and of its values.
        windows: whether some layers see only the last tokens.
        state_size: numbers of a sequence's recurrent state, over all layers.
        inner: width inside a layer with such a state.
    """

    architecture: str
    experts_used: int
    kv_widths: tuple[tuple[int, int], ...]
    head_widths: frozenset[int]
    windows: bool
    state_size: int
    inner: int

    @property
    def recurrent(self) -> bool:
        """Whether a sequence has a state that cannot go back to an earlier position."""
        return self.state_size > 0


class _Reader:
    """The keys of one architecture, each a number or one number a layer."""

    def __init__(self, header: Header) -> None:
        self.metadata = CheckedMetadata(header)
        self.architecture: str = self.metadata.get("general.architecture", GGUFValueType.STRING)
        self.layers = self.metadata.count(f"{self.architecture}.block_count", MAX_LAYERS)
        parts = (name.split(".", 2) for name in header.tensors if name.startswith("blk."))
        self._parts = [part for part in parts if len(part) > 2]

    def by_layer(self, key: str, default: int | list[int] = 0) -> list[int]:
        """A number for each layer."""
        name = f"{self.architecture}.{key}"
        found: Any = self.metadata.header.metadata.get(name, default)
        values = found if isinstance(found, list) else [found] * self.layers
        numbers = [value for value in values if isinstance(value, int)]
        if len(numbers) < len(values) or len(numbers) < self.layers:
            raise self.metadata.error(
                f"metadata key {name!r} is not a number for each of {self.layers} layers"
            )
        if not 0 <= min(numbers) <= max(numbers) <= MAX_COUNT:
            raise self.metadata.error(f"metadata key {name!r} is not from 0 to {MAX_COUNT}")
        return numbers[: self.layers]

    def number(self, key: str, default: int = 0) -> int:
        """The largest number of any layer."""
        return max(self.by_layer(key, default))

    def layers_with(self, *beginnings: str) -> set[int]:
        """The layers with a tensor whose name begins so."""
        found = {part[1] for part in self._parts if part[2].startswith(beginnings)}
        return {layer for layer in range(self.layers) if str(layer) in found}


def read_decoder_shape(header: Header) -> DecoderShape:
    """Read the shape of the decoder that a GGUF file holds.

    Raises:
        FileError: a value is missing, of the wrong type or out of range; file and key are named.
    """
    read = _Reader(header)
    hidden = read.metadata.count(f"{read.architecture}.embedding_length", MAX_COUNT)
    heads = read.by_layer("attention.head_count")
    kv_heads = read.by_layer("attention.head_count_kv", heads)
    usual = hidden // max(heads) if any(heads) else 0
    keys, values = (
        max(read.number(f"attention.{kind}_length", usual), read.number(f"attention.{kind}_length_swa"))
        for kind in ("key", "value")
    )
    latent = read.number("attention.key_length_mla") > 0  # values are read out of the keys
    own = read.layers - read.number("attention.shared_kv_layers")
    keeping = [layer for layer in sorted(read.layers_with(*(f"{key}." for key in _KEYS))) if layer < own]
    states, width = read.layers_with(*_STATES), _state_width(read, hidden, max(heads))
    if not keeping and not states:  # other names: then all layers are taken for ordinary ones
        keeping = [*range(own)]
    used = read.number("expert_used_count") if read.number("expert_count") else 0
    dense = read.number("feed_forward_length")
    expert = read.number("expert_feed_forward_length", dense) * used
    return DecoderShape(
        architecture=read.architecture,
        layers=read.layers,
        hidden=hidden,
        ffn=max(dense, expert + read.number("expert_shared_feed_forward_length")),
        heads=max(heads),
        kv_heads=max(kv_heads),
        head_dim=keys,
        vocab=len(read.metadata.array("tokenizer.ggml.tokens", GGUFValueType.STRING)),
        context=read_context(read.metadata, read.architecture),
        experts_used=used,
        kv_widths=tuple(
            (kv_heads[layer] * keys, 0 if latent else kv_heads[layer] * values) for layer in keeping
        ),
        head_widths=frozenset({keys, values} if keeping else ()),
        windows=read.number("attention.sliding_window") > 0,
        state_size=len(states) * width,
        inner=read.number("ssm.inner_size", 2 * hidden if read.number("wkv.head_size") else 0),
    )


def _state_width(read: _Reader, hidden: int, heads: int) -> int:
    """Numbers of a layer's recurrent state: what it needs of the last tokens, and its sum over all."""
    kernel, inner, state = (read.number(f"ssm.{key}") for key in ("conv_kernel", "inner_size", "state_size"))
    if head := read.number("wkv.head_size"):  # RWKV
        return read.number("token_shift_count", 2) * hidden + hidden * head
    if short := read.number("shortconv.l_cache"):  # LFM2
        return hidden * (short - 1)
    if head := read.number("kda.head_dim"):  # Kimi
        return (3 * max(kernel - 1, 0) + head) * heads * head
    return max(kernel - 1, 0) * (inner + 2 * read.number("ssm.group_count") * state) + state * inner
