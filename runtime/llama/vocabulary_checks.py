"""Checks of the vocabulary in a GGUF header: with some, llama.cpp's tokenizers end the process, or never end.

The cases come from llama-vocab.cpp. Most of its errors while it loads end the load only; these come later,
with the text of a request.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from gguf.constants import GGUFValueType, TokenType
from numpy.typing import NDArray

from ...files.gguf.header import Header
from ...files.gguf.metadata import CheckedMetadata
from ...files.gguf.string_array import StringArray

# Pre-tokenizers with code of their own in llama.cpp. The others (falcon, bloom, viking, deepseek-llm and
# default among them) run through std::regex, which overflows the stack on a long run of letters or digits:
# vocabulary.py bounds them.
PRE_TOKENIZERS = (
    *("gpt-2", "llama-bpe", "llama3", "llama-v3"),
    *("smollm", "starcoder", "qwen2", "deepseek-r1-qwen"),
)
BPE = ("gpt2", "gemma4")
TOKENIZERS = (*BPE, "llama", "bert", "t5", "rwkv", "plamo2")
CONTROL_NAME_MAX = 128  # characters; published ones have at most 40
CONTROL_TOKENS_MAX = 1 << 14  # published vocabularies have at most 6,500
STRING = GGUFValueType.STRING
_ESCAPE = re.compile(rb"\\(x..|.)", re.DOTALL)
_ESCAPED = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def tokenizer_names(header: Header) -> tuple[str, str]:
    """The tokenizer and the pre-tokenizer of a header, as llama.cpp names them."""
    model, pre = (header.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
    return str(model), str(pre or "default")


def check_vocabulary(metadata: CheckedMetadata) -> None:
    """Check that llama.cpp can split any text with the vocabulary.

    Raises:
        FileError: it cannot; the message names the key.
    """
    model = metadata.get("tokenizer.ggml.model", STRING)
    if model not in TOKENIZERS:
        raise metadata.error(f"tokenizer {model!r} is not supported; supported: {', '.join(TOKENIZERS)}")
    if "tokenizer.ggml.pre" in metadata.header.fields:
        pre = metadata.get("tokenizer.ggml.pre", STRING)
        if pre == "whitespace":  # a text with two spaces fails an assertion of find_bpe_rank()
            raise metadata.error(f"pre-tokenizer {pre!r} is not supported")
    tokens = metadata.array("tokenizer.ggml.tokens", STRING)
    if not tokens:
        raise metadata.error("the vocabulary is empty")
    assert isinstance(tokens, StringArray), "arrays of strings are read as such"
    raw = tokens.raw()
    if len(set(raw)) < len(raw) or not all(raw) or b"\0" in b"".join(raw):
        _check_distinct(metadata, tokens)
    if model in BPE:
        metadata.array("tokenizer.ggml.merges", STRING)
    _check_types(metadata, tokens, required=model == "gpt2")
    if model == "llama":
        _check_bytes(metadata, raw)
    elif model == "rwkv":
        _check_first_bytes(metadata, raw)
    elif model == "t5" and "tokenizer.ggml.precompiled_charsmap" in metadata.header.fields:
        _check_charsmap(metadata)


def _check_types(metadata: CheckedMetadata, tokens: StringArray, *, required: bool) -> None:
    if not required and "tokenizer.ggml.token_type" not in metadata.header.fields:
        return
    types = metadata.array("tokenizer.ggml.token_type", GGUFValueType.INT32)
    if len(types) != len(tokens):
        raise metadata.error(f"the vocabulary has {len(tokens)} tokens but {len(types)} token types")
    control = {int(TokenType.CONTROL), int(TokenType.UNKNOWN)}
    lengths = [len(tokens[token]) for token, type_ in enumerate(types) if type_ in control]
    if (longest := max(lengths, default=0)) > CONTROL_NAME_MAX:
        raise metadata.error(
            f"the name of a control token has {longest} characters; at most {CONTROL_NAME_MAX} are supported"
        )
    if len(lengths) > CONTROL_TOKENS_MAX:
        raise metadata.error(f"{len(lengths)} control tokens; at most {CONTROL_TOKENS_MAX} are supported")


def _check_distinct(metadata: CheckedMetadata, tokens: Iterable[str]) -> None:
    # llama.cpp reads a token up to its first zero byte and gives an empty token a name of its own.
    names = [token.split("\0", 1)[0] or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise metadata.error(f"token {name!r} occurs {times} times in the vocabulary")


def _check_bytes(metadata: CheckedMetadata, raw: Sequence[bytes]) -> None:
    """SentencePiece falls back to bytes: one without a token ends the process (token_to_id.at())."""
    names = set(raw)
    for byte in range(1, 256):  # no text has a zero byte that reaches the tokenizer
        if b"<0x%02X>" % byte not in names and bytes([byte]) not in names:
            raise metadata.error(f"the vocabulary has no token for the byte <0x{byte:02X}>")


def _check_first_bytes(metadata: CheckedMetadata, raw: Sequence[bytes]) -> None:
    """RWKV's tokenizer does not end where a text begins like a token and no token is a part of it."""
    tokens = {_ESCAPE.sub(_unescaped, name) for name in raw}
    for first in sorted({token[:1] for token in tokens} - tokens):
        raise metadata.error(f"the vocabulary has no token for the byte {first!r}, which begins others")


def _unescaped(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    if len(escaped) == 3:  # hexadecimal digits, read as llama.cpp reads them
        high, low = (
            digit - ord("a") + 10 if digit >= ord("a") else digit - ord("0") for digit in escaped[1:]
        )
        return bytes([(16 * high + low) % 256])
    return _ESCAPED.get(escaped, escaped)


def _check_charsmap(metadata: CheckedMetadata) -> None:
    """Unigram's table of replacements: a double array, and texts that end with a zero byte.

    Each step that a text can make must stay within the array, and each text must end.
    """
    key = "tokenizer.ggml.precompiled_charsmap"
    values = metadata.get(key, GGUFValueType.ARRAY)
    if metadata.header.fields[key].element not in {GGUFValueType.INT8, GGUFValueType.UINT8}:
        raise metadata.error(f"metadata key {key!r} is not an array of bytes")
    data = np.array(values, np.int16).astype(np.uint8).tobytes()
    end = 4 + int.from_bytes(data[:4], "little")
    texts = data[end:]
    if end % 4 or end < 8 or not texts.endswith(b"\0"):
        raise metadata.error(f"metadata key {key!r} is damaged: {len(data)} bytes, an array up to byte {end}")
    nodes: NDArray[np.int64] = np.frombuffer(data[4:end], "<u4").astype(np.int64)
    places = np.arange(len(nodes))
    steps = nodes < 1 << 31  # the others are offsets of texts
    children = places ^ ((nodes >> 10) << ((nodes & 512) >> 6))
    leaves = steps & (nodes & 256 > 0)
    if (children[steps] | 255).max(initial=0) >= len(nodes):
        raise metadata.error(f"metadata key {key!r} is damaged: a step leaves its {len(nodes)} nodes")
    if (nodes[children[leaves]] & ((1 << 31) - 1)).max(initial=0) >= len(texts):
        raise metadata.error(f"metadata key {key!r} is damaged: a text is outside its {len(texts)} bytes")
