"""The list of the tokens of a base that a file keeps."""

import json
from dataclasses import dataclass, field
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
        if missing := [key for key in _KEYS if key not in facts]:
            raise FileError(f"{path}: not a vocabulary list: has no {missing[0]!r}")
        of, sha256, tokens = (facts[key] for key in _KEYS)
        if type(of) is not int or not 0 < of <= MAX_TOKENS:
            raise FileError(f"{path}: of: {shorten(of)} is not a number from 1 to {MAX_TOKENS}")
        if not isinstance(sha256, str) or len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise FileError(f"{path}: tokenizer_sha256: {shorten(sha256)} is not a SHA-256")
        check_tokens(f"{path}: tokens", tokens, of)
        return cls(tuple(tokens), of, sha256, str(path))


def check_list(kept: VocabularyList, tables: TokenizerTables) -> None:
    """Check that a base with this tokenizer can be trimmed to this list.

    Args:
        kept: the list.
        tables: the full tokenizer.

    Raises:
        FileError: the list was made for another tokenizer, is not ascending or in range, or lacks a
            token that must stay.
    """
    where, size = kept.name, len(tables.tokens)
    if (kept.of, kept.tokenizer_sha256) != (size, tables.sha256):
        raise FileError(
            f"{where}: is for another tokenizer: of {kept.of} tokens with the hash "
            f"{kept.tokenizer_sha256[:12]}…; {tables.where} has {size} with {tables.sha256[:12]}…"
        )
    check_tokens(f"{where}: tokens", list(kept.tokens), size)
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
    if not isinstance(tokens, list) or not tokens:
        raise FileError(f"{where}: {shorten(tokens)} is not a list of ids")
    previous = -1
    for place, token in enumerate(tokens):
        if type(token) is not int or not 0 <= token < of:
            raise FileError(f"{where}[{place}]: {shorten(token)} is not one of {of} tokens")
        if token <= previous:
            what = "occurs twice" if token == previous else f"follows {previous}: ids must ascend"
            raise FileError(f"{where}[{place}]: {token} {what}")
        previous = token
