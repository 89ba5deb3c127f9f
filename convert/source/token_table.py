"""The texts and types of a vocabulary, by token id."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind
from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import STRIPPING_TOKENS, Field

Entry = tuple[str, int, TokenType]  # text, id and type of a token


def token_table(path: Path, entries: Iterable[Entry], vocab: int) -> dict[str, Field]:
    """Texts and types of `vocab` tokens as GGUF metadata; an id without an entry is an unused token."""
    tokens, types = [f"[PAD{i}]" for i in range(vocab)], [int(TokenType.UNUSED)] * vocab
    for text, i, kind in entries:
        if i not in range(vocab) or (types[i] != TokenType.UNUSED and tokens[i] != text):
            raise FileError(
                f"{path}: token {text!r} has the id {i!r}, but the embedding has {vocab} rows, one for each"
            )
        tokens[i], types[i] = text, int(kind)
    text, times = Counter(tokens).most_common(1)[0]
    if times > 1:  # llama.cpp aborts
        raise FileError(f"{path}: token {text!r} has {times} ids")
    return {
        "tokenizer.ggml.tokens": Field(tokens, Kind.ARRAY, Kind.STRING),
        "tokenizer.ggml.token_type": Field(types, Kind.ARRAY, Kind.INT32),
    }


def added_tokens(path: Path, tokens: Iterable[Mapping[str, Any]]) -> Iterator[Entry]:
    """Read the added tokens of tokenizer.json; FileError if one has an option that a GGUF lacks."""
    for token in tokens:
        special = bool(token.get("special"))
        options = ("lstrip", "single_word") if special else ("lstrip", "single_word", "rstrip")
        refuse_options(path, f"the added token {token['content']!r}", token, options)
        yield token["content"], token["id"], TokenType.CONTROL if special else TokenType.USER_DEFINED


def stripping_fields(tokens: Iterable[Mapping[str, Any]]) -> dict[str, Field]:
    """Metadata that names the control tokens which take the white space after them."""
    names = [token["content"] for token in tokens if token.get("special") and token.get("rstrip")]
    return {STRIPPING_TOKENS: Field(names, Kind.ARRAY, Kind.STRING)} if names else {}


def refuse_options(path: Path, subject: str, values: Mapping[str, Any], options: Iterable[str]) -> None:
    """Raise FileError if one of the options is on, of which each changes tokens in a way llama.cpp lacks."""
    for option in options:
        if value := values.get(option):
            raise FileError(f"{path}: {subject} has {option} {value!r}, which a GGUF cannot represent")
