"""The list of the tokens of a base that a file keeps, as a file of its own and in the metadata of a GGUF."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from gguf import GGUFValueType

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header
from ...files.json_file import layout_errors, read_json
from ...files.output import write_file
from .tokenizer_tables import TokenizerTables

SIZES = (16_384, 24_576, 32_768, 49_152, 65_536, 98_304)  # that are compared with the full vocabulary
PREFIX = "thirteen.vocabulary."
_MAX_TOKENS = 1 << 24
_MAX_BYTES = 160_000_000  # _MAX_TOKENS ids of eight digits
_U32, _TEXT, _ARRAY = GGUFValueType.UINT32, GGUFValueType.STRING, GGUFValueType.ARRAY


@dataclass(frozen=True)
class VocabularyList:
    """The tokens that stay. Token `tokens[i]` of the full vocabulary is token `i` of the file."""

    tokens: tuple[int, ...]  # original ids, ascending
    of: int  # tokens in the full vocabulary
    tokenizer_sha256: str  # see TokenizerTables, of the full tokenizer
    name: str = field(default="the vocabulary list", compare=False)  # in errors: its file, if it has one

    def __post_init__(self) -> None:
        ascending = all(type(token) is int for token in self.tokens) and all(
            token < after for token, after in pairwise((-1, *self.tokens, self.of))
        )
        if not self.tokens or not ascending or not isinstance(self.tokenizer_sha256, str):
            raise FileError(
                f"{self.name}: not a vocabulary list: it needs tokenizer_sha256 and tokens, which are "
                f"ascending ids below {shorten(self.of)}"
            )

    def save(self, path: Path) -> None:
        """Write the list as JSON, atomically."""
        facts = {"of": self.of, "tokenizer_sha256": self.tokenizer_sha256, "tokens": self.tokens}
        write_file(path, json.dumps(facts).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> "VocabularyList":
        """Read a list; FileError if the file is none."""
        facts = read_json(path, _MAX_BYTES)
        with layout_errors(path):
            return cls(tuple(facts["tokens"]), facts["of"], facts["tokenizer_sha256"], str(path))


def check_list(kept: VocabularyList, tables: TokenizerTables) -> None:
    """Raise FileError if a list is for another tokenizer, or lacks a token that must stay."""
    where, size = kept.name, len(tables.tokens)
    if (kept.of, kept.tokenizer_sha256) != (size, tables.sha256):
        raise FileError(
            f"{where}: is for another tokenizer: of {kept.of} tokens with the hash "
            f"{kept.tokenizer_sha256[:12]}…; {tables.where} has {size} with {tables.sha256[:12]}…"
        )
    if missing := sorted(tables.required_ids - set(kept.tokens)):
        raise FileError(
            f"{where}: lacks {len(missing)} single bytes or tokens that the chat template or generation "
            f"uses, such as {missing[0]} ({shorten(tables.tokens[missing[0]])})"
        )
    if parts := tables.missing_parts(kept.tokens):
        part, token = next(iter(parts.items()))
        raise FileError(
            f"{where}: is not closed under merges: token {token} ({shorten(tables.tokens[token])}) "
            f"is built from {part} ({shorten(tables.tokens[part])}), which is not in the list"
        )


def vocabulary_fields(kept: VocabularyList) -> dict[str, Field]:
    """Metadata of a file that keeps these tokens, by which anyone can map its tokens back."""
    values = {
        "kept": Field(len(kept.tokens), _U32),
        "of": Field(kept.of, _U32),
        "tokenizer_sha256": Field(kept.tokenizer_sha256, _TEXT),
        "tokens": Field(list(kept.tokens), _ARRAY, _U32),
    }
    return {PREFIX + key: field for key, field in values.items()}


def read_vocabulary(header: Header) -> VocabularyList | None:
    """Which tokens of the full vocabulary a GGUF keeps; None if it is not trimmed."""
    if not any(key.startswith(PREFIX) for key in header.fields):
        return None
    of, tokens = header.count(f"{PREFIX}of", _MAX_TOKENS), header.array(f"{PREFIX}tokens", _U32)
    count = len(header.array("tokenizer.ggml.tokens", _TEXT))
    if len(tokens) != count:
        raise header.error(
            f"metadata key '{PREFIX}tokens' has {len(tokens)} ids, but the file has {count} tokens"
        )
    sha256 = header.value(f"{PREFIX}tokenizer_sha256", _TEXT)
    return VocabularyList(tuple(tokens), of, sha256, str(header.path))
