"""Shape of a decoder, and the pooling of a model for embeddings, read from the header of a GGUF file.

The names of a layer's tensors say whether it keeps keys and values or a recurrent state. The sizes are those
of llama-hparams.cpp of llama.cpp.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from gguf.constants import GGUFValueType

from ...errors import FileError
from .header import Header

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_COUNT = 1 << 24  # widths, heads and tokens
MAX_CONTEXT = (1 << 31) - 1
_WITHOUT_WINDOWS = frozenset({"llama", "qwen2", "qwen3", "smollm3", "phi3", "granite", "lfm2"})
_KEYS = ("attn_k", "attn_qkv", "attn_kv_a_mqa")  # tensors of a layer that keeps keys
_STATES = ("ssm_", "shortconv.", "time_mix_")  # beginnings of the tensors of one that keeps a state
# Architectures of llama.cpp without a KV cache: all tokens of a text see each other.
ENCODERS = (
    *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert"),
    *("jina-bert-v2", "jina-bert-v3", "gemma-embedding"),
)
_WITH_CACHE = ("llama-embed",)  # they do, too


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder; of what differs by layer, the largest."""

    layers: int  # transformer layers
    hidden: int  # width of the hidden state
    ffn: int  # width inside the feed-forward network; that of all the experts that a token uses
    heads: int  # query heads
    kv_heads: int  # key-value heads; each serves `heads / kv_heads` query heads
    head_dim: int  # width of a head's keys
    vocab: int  # tokens of the vocabulary
    context: int  # tokens of the longest context that the model was trained for

    @property
    def kv_width(self) -> int:
        """Width of a token's keys, and of its values, over all key-value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> dict[str, tuple[int, int]]:
        """Shape of each matrix of a dense layer, (out, in), by its name in a GGUF file."""
        q_width = self.heads * self.head_dim
        return {
            "attn_q": (q_width, self.hidden),
            "attn_k": (self.kv_width, self.hidden),
            "attn_v": (self.kv_width, self.hidden),
            "attn_output": (self.hidden, q_width),
            "ffn_gate": (self.ffn, self.hidden),
            "ffn_up": (self.ffn, self.hidden),
            "ffn_down": (self.hidden, self.ffn),
        }

    def check(self, where: object) -> None:
        """Raise FileError, with `where` named, if the sizes do not fit each other."""
        if min(self.heads, self.kv_heads) < 1 or self.heads % self.kv_heads:
            raise FileError(
                f"{where}: {self.heads} heads do not divide among {self.kv_heads} key-value heads"
            )
        if self.head_dim < 1 or self.head_dim % 2:
            raise FileError(f"{where}: the head dimension is {self.head_dim}; it must be positive and even")


@dataclass(frozen=True)
class DecoderShape(ModelShape):
    """Shape of a decoder of any architecture, as far as the memory that it needs depends on it.

    Attributes:
        kv_widths: for each layer that keeps them, width of a token's keys and of its values.
    """

    architecture: str  # its name in llama.cpp
    experts_used: int  # experts of a token; 0 in a dense model
    kv_widths: tuple[tuple[int, int], ...]
    head_widths: frozenset[int]  # widths of a head's keys, and of its values
    windows: bool  # whether some layers see only the last tokens
    state_size: int  # numbers of a sequence's recurrent state, over all layers
    inner: int  # width inside a layer with such a state

    @property
    def recurrent(self) -> bool:
        """Whether a sequence has a state that cannot go back to an earlier position."""
        return self.state_size > 0


class _Reader:
    """The keys of one architecture, each a number or one number a layer."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.architecture: str = header.value("general.architecture", GGUFValueType.STRING)
        self.layers = header.count(f"{self.architecture}.block_count", MAX_LAYERS)
        parts = (name.split(".", 2) for name in header.tensors if name.startswith("blk."))
        self._parts = [part for part in parts if len(part) > 2]

    def by_layer(self, key: str, default: int | list[int] = 0) -> list[int]:
        """A number for each layer."""
        name = f"{self.architecture}.{key}"
        found: Any = self.header.metadata.get(name, default)
        values = found[: self.layers] if isinstance(found, list) else [found] * self.layers
        if len(values) < self.layers or not all(
            isinstance(value, int) and 0 <= value <= MAX_COUNT for value in values
        ):
            raise self.header.error(
                f"metadata key {name!r} is not a number from 0 to {MAX_COUNT} for each of "
                f"{self.layers} layers"
            )
        return values

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
    hidden = header.count(f"{read.architecture}.embedding_length", MAX_COUNT)
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
        vocab=len(header.array("tokenizer.ggml.tokens", GGUFValueType.STRING)),
        context=_read_context(header, read.architecture),
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


def _read_context(header: Header, architecture: str) -> int:
    """The longest context in tokens: where the graph of llama.cpp has no windows, not beyond one."""
    context = header.count(f"{architecture}.context_length", MAX_CONTEXT)
    key = f"{architecture}.attention.sliding_window"
    if architecture not in _WITHOUT_WINDOWS or not header.metadata.get(key):
        return context
    return min(context, header.count(key, MAX_CONTEXT))


class Pooling(IntEnum):
    """Which vectors of a text's tokens become the text's, by llama.cpp's numbers."""

    MEAN = 1
    CLS = 2
    LAST = 3


def read_pooling(header: Header) -> Pooling | None:
    """The pooling of a model; None for one that continues texts.

    An encoder whose file names none takes the mean, as sentence-transformers does.

    Raises:
        FileError: the file has another pooling, as that of a model that ranks texts.
    """
    architecture = header.metadata.get("general.architecture")
    number = header.metadata.get(key := f"{architecture}.pooling_type") or 0
    if number == 0:
        return Pooling.MEAN if architecture in (*ENCODERS, *_WITH_CACHE) else None
    if number not in tuple(Pooling):
        what = "a model that ranks texts" if number == 4 else "no pooling that is known"
        raise header.error(f"metadata key {key!r} is {number!r}: {what}")
    return Pooling(number)


def embeds_in_parts(header: Header) -> bool:
    """Whether a text can be computed in parts: the last token of a decoder has seen those before it."""
    architecture = header.metadata["general.architecture"]
    causal = header.metadata.get(f"{architecture}.attention.causal", architecture not in _WITH_CACHE)
    return causal and architecture not in ENCODERS and read_pooling(header) is Pooling.LAST
