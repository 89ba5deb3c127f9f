"""The list of the tokens of a base that a file keeps."""

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ...errors import FileError, shorten
from ...files.atomic_write import write_file
from ...files.json_file import read_json
from .tokenizer_tables import TokenizerTables

SIZES = (16_384, 24_576, 32_768, 49_152, 65_536, 98_304)  # that are compared with the full vocabulary
MAX_TOKENS = 1 << 24
_MAX_BYTES = 160_000_000  # MAX_TOKENS ids of eight digits
_KEYS = ("of", "tokenizer_sha256", "tokens")


@dataclass(frozen=True)
class VocabularyList:
    """The tokens that stay. Token `tokens[i]` of the full vocabulary is token `i` of the file.

    Attributes:
        tokens: original ids, ascending.
        of: number of tokens in the full vocabulary.
        tokenizer_sha256: `TokenizerTables.sha256` of the full tokenizer.
        name: names the list in errors: its file, if it has one.
    """

    tokens: tuple[int, ...]
    of: int
    tokenizer_sha256: str
    name: str = field(default="the vocabulary list", compare=False)

    def save(self, path: Path) -> None:
        """Write the list as JSON, atomically.

        Raises:
            OutputError: the file cannot be written. Nothing is left behind.
        """
        facts = {"of": self.of, "tokenizer_sha256": self.tokenizer_sha256, "tokens": self.tokens}
        write_file(path, json.dumps(facts).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> "VocabularyList":
        """Read a list; whether it fits a base is for check_list().

        Raises:
            FileError: the file cannot be read or is not such a list; the message names the place.
        """
        facts = read_json(path, _MAX_BYTES)
        of, sha256, tokens = (facts.get(key) for key in _KEYS)
        if not (type(of) is int and 0 < of <= MAX_TOKENS and isinstance(sha256, str)):
            raise FileError(f"{path}: not a vocabulary list: it needs {', '.join(_KEYS)}")
        check_tokens(f"{path}: tokens", tokens, of)
        return cls(tuple(tokens or ()), of, sha256, str(path))


def check_list(kept: VocabularyList, tables: TokenizerTables) -> None:
    """Check that a base with this tokenizer can be trimmed to this list.

    Args:
        kept: the list.
        tables: the full tokenizer.

    Raises:
        FileError: the list was made for another tokenizer, or lacks a token that must stay.
    """
    where, size = kept.name, len(tables.tokens)
    if (kept.of, kept.tokenizer_sha256) != (size, tables.sha256):
        raise FileError(
            f"{where}: is for another tokenizer: of {kept.of} tokens with the hash "
            f"{kept.tokenizer_sha256[:12]}…; {tables.where} has {size} with {tables.sha256[:12]}…"
        )
    ids = set(kept.tokens)
    for what, needed in (
        ("single bytes, without which not every text can be written", tables.byte_ids.values()),
        ("tokens that the chat template or generation uses", tables.required_ids),
    ):
        if missing := sorted({*needed} - ids):
            first = f"{missing[0]} ({shorten(tables.tokens[missing[0]])})"
            raise FileError(f"{where}: lacks {len(missing)} {what}, such as {first}")
    if parts := tables.missing_parts(kept.tokens):
        part, token = next(iter(parts.items()))
        raise FileError(
            f"{where}: is not closed under merges: token {token} ({shorten(tables.tokens[token])}) "
            f"is built from {part} ({shorten(tables.tokens[part])}), which is not in the list"
        )


def check_tokens(where: str, tokens: Any, of: int) -> None:
    """Check that `tokens` is a list of ascending ids below `of`.

    Raises:
        FileError: it is not; the message begins with `where`.
    """
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int for token in tokens):
        raise FileError(f"{where}: {shorten(tokens)} is not a list of ids")
    if not 0 <= tokens[0] <= tokens[-1] < of or any(token >= after for token, after in pairwise(tokens)):
        raise FileError(f"{where}: {shorten(tokens)} are not ascending ids below {of}")
