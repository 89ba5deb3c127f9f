"""Shape of a dense decoder, read from the header of its GGUF file."""

from dataclasses import dataclass

from gguf.constants import GGUFValueType

from ...errors import FileError
from .header import Header
from .metadata import CheckedMetadata

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_COUNT = 1 << 24  # widths, heads and tokens
MAX_CONTEXT = (1 << 31) - 1
_WITHOUT_WINDOWS = frozenset({"llama", "qwen2", "qwen3", "smollm3", "phi3", "granite", "lfm2"})


@dataclass(frozen=True)
class Sizes:
    """Sizes that every decoder has.

    Attributes:
        layers: transformer layers.
        hidden: width of the hidden state.
        ffn: width inside the feed-forward network.
        heads: query heads.
        kv_heads: key-value heads; each serves `heads / kv_heads` query heads.
        head_dim: width of a head.
        vocab: tokens of the vocabulary.
        context: tokens of the longest context that the model was trained for.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int


@dataclass(frozen=True)
class ModelShape(Sizes):
    """Sizes of a decoder whose layers have the same ones."""

    @property
    def kv_width(self) -> int:
        """Width of a token's keys, and of its values, over all key-value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> dict[str, tuple[int, int]]:
        """Shape of each matrix of a layer, (out, in), by its name in a GGUF file."""
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
        if self.heads % self.kv_heads:
            raise FileError(
                f"{where}: {self.heads} heads do not divide among {self.kv_heads} key-value heads"
            )
        if self.head_dim < 1 or self.head_dim % 2:
            raise FileError(f"{where}: the head dimension is {self.head_dim}; it must be positive and even")


def read_model_shape(header: Header, kv_heads: int | None = None) -> ModelShape:
    """Read the shape of the model that a GGUF file holds.

    Args:
        header: header of the file.
        kv_heads: the key-value heads of the layers that have some, where the metadata has a list of them.

    Raises:
        FileError: a value is missing, of another type than llama.cpp reads, out of range
            or at odds with another; file and key are named.
    """
    metadata = CheckedMetadata(header)
    architecture = metadata.get("general.architecture", GGUFValueType.STRING)

    def count(key: str, default: int | None = None, maximum: int = MAX_COUNT) -> int:
        return metadata.count(f"{architecture}.{key}", maximum, default)

    heads, hidden = count("attention.head_count"), count("embedding_length")
    head_dim = count("attention.key_length", hidden // heads)
    shape = ModelShape(
        layers=count("block_count", maximum=MAX_LAYERS),
        hidden=hidden,
        ffn=count("feed_forward_length"),
        heads=heads,
        kv_heads=kv_heads or count("attention.head_count_kv", heads),
        head_dim=head_dim,
        vocab=len(metadata.array("tokenizer.ggml.tokens", GGUFValueType.STRING)),
        context=read_context(metadata, architecture),
    )
    shape.check(header.path)
    check_head_width(metadata, f"{architecture}.attention.value_length", head_dim)
    return shape


def read_context(metadata: CheckedMetadata, architecture: str) -> int:
    """The longest context in tokens: where the graph of llama.cpp has no windows, not beyond one."""
    context = metadata.count(f"{architecture}.context_length", MAX_CONTEXT)
    key = f"{architecture}.attention.sliding_window"
    if architecture not in _WITHOUT_WINDOWS or not metadata.header.metadata.get(key):
        return context
    return min(context, metadata.count(key, MAX_CONTEXT))


def check_head_width(metadata: CheckedMetadata, key: str, head_dim: int) -> None:
    """Raise FileError if a key that gives the width of a head, or of a part of it, is not `head_dim`."""
    if (width := metadata.count(key, MAX_COUNT, head_dim)) != head_dim:
        raise metadata.error(f"metadata key {key!r} is {width}, but the head dimension is {head_dim}")
