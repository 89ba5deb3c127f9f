"""How a model that is made for embeddings makes one vector of a text, by the metadata of its file."""

from enum import IntEnum

from .header import Header

# Architectures of llama.cpp without a KV cache: all tokens of a text see each other.
ENCODERS = (
    *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "eurobert"),
    *("jina-bert-v2", "jina-bert-v3", "gemma-embedding"),
)
_WITH_CACHE = ("llama-embed",)  # they do, too


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
