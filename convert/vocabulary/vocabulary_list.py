"""Lists of the tokens of a base that a file keeps, and the base with only these.

A list is a file of its own, and in the metadata of a GGUF. A trimmed base has fewer rows of the embedding and
of the output, and a tokenizer to match.

A text whose original tokens are all kept gets exactly these tokens, renumbered. BPE joins, within a word, the
pair of the lowest rank, the leftmost of several. No merge crosses the bounds of a final token, so the merges
within one are those of BPE over that token's own text. A list is closed under merges: it has their results.
So while both tokenizers have the same symbols, as at the start, the trimmed one has the merge that the
original does next, and none of a lower rank. Words that `ignore_merges` takes as a whole, and control and
user-defined tokens, which are found before all this, are kept or not in both alike. The same holds for
SentencePiece: its merges are the pairs that make a token, its ranks the scores, its symbols characters.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field, Header, read_header
from ...files.json_file import layout_errors, read_json
from ...files.output import write_file
from ...stats import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint, GgufCheckpoint
from .tokenizer_tables import PREFIX, TokenizerTables

SIZES = (16_384, 24_576, 32_768, 49_152, 65_536, 98_304)  # that are compared with the full vocabulary
_KEPT = "thirteen.vocabulary."
_MAX_TOKENS = 1 << 24
_MAX_BYTES = 160_000_000  # _MAX_TOKENS ids of eight digits
_U32, _TEXT, _ARRAY = GGUFValueType.UINT32, GGUFValueType.STRING, GGUFValueType.ARRAY
_BY_TOKEN = [f"{PREFIX}{name}" for name in ("tokens", "token_type", "scores")]
# A copy of tokenizer.json, which llama.cpp does not read: it would describe the full vocabulary.
_DROPPED = "tokenizer.huggingface.json"
_SPAN = 1024  # kept rows are read with the dropped ones between them, at most so many at once


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
    return {_KEPT + key: field for key, field in values.items()}


def read_vocabulary(header: Header) -> VocabularyList | None:
    """Which tokens of the full vocabulary a GGUF keeps; None if it is not trimmed."""
    if not any(key.startswith(_KEPT) for key in header.fields):
        return None
    of, tokens = header.count(f"{_KEPT}of", _MAX_TOKENS), header.array(f"{_KEPT}tokens", _U32)
    count = len(header.array("tokenizer.ggml.tokens", _TEXT))
    if len(tokens) != count:
        raise header.error(
            f"metadata key '{_KEPT}tokens' has {len(tokens)} ids, but the file has {count} tokens"
        )
    sha256 = header.value(f"{_KEPT}tokenizer_sha256", _TEXT)
    return VocabularyList(tuple(tokens), of, sha256, str(header.path))


class TrimmedCheckpoint(Checkpoint):
    """A Checkpoint that presents only the kept tokens of another, `full`."""

    def __init__(self, full: Checkpoint, kept: VocabularyList) -> None:
        """Trim a base; FileError if the list does not fit it, or its tokenizer cannot be trimmed."""
        super().__init__(full, replace(full.architecture, vocab=len(kept.tokens)))
        self.kept = kept
        self._fields = full.tokenizer
        self._tables = TokenizerTables.from_fields(self._fields, str(full.path))
        check_list(kept, self._tables)
        self._ids = np.array(kept.tokens, np.int64)  # (kept,)

    def is_trimmed(self, name: str) -> bool:
        """Whether a tensor has one row for each token."""
        return self.specs[name].target in (EMBEDDING, OUTPUT)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        if not self.is_trimmed(name):
            return self.full.rows(name, start, stop)
        return np.concatenate(
            [self.full.rows(name, first, last)[chosen] for first, last, chosen in self._spans(start, stop)]
        )

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        if not self.is_trimmed(name):
            return self.full.stored_rows(name, start, stop)
        parts = []
        for first, last, chosen in self._spans(start, stop):
            stored = self.full.stored_rows(name, first, last)
            if stored is None:
                return None
            parts.append(np.frombuffer(stored, np.uint8).reshape(last - first, -1)[chosen].tobytes())
        return b"".join(parts)

    @cached_property
    def tokenizer(self) -> dict[str, Field]:
        return trimmed_fields(self._fields, self._tables, self.kept)

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Ranges of rows of the full base that hold the kept rows `start` to `stop`, and which those are."""
        ids = self._ids[start:stop]
        for part in np.split(ids, np.flatnonzero(np.diff(ids // _SPAN)) + 1):
            yield int(part[0]), int(part[-1]) + 1, part - part[0]


def trimmed_fields(
    fields: Mapping[str, Field], tables: TokenizerTables, kept: VocabularyList
) -> dict[str, Field]:
    """Metadata of the tokenizer with only the kept tokens, which check_list() accepts, renumbered."""
    changed = {}
    if tables.scores is None:
        merges = [
            f"{tables.tokens[left]} {tables.tokens[right]}"
            for left, right, _ in tables.merges_among(kept.tokens).tolist()
        ]
        changed[f"{PREFIX}merges"] = replace(fields[f"{PREFIX}merges"], value=merges)
    new_ids = {old: new for new, old in enumerate(kept.tokens)}
    for key in _BY_TOKEN:
        if key in fields:
            values = fields[key].value
            changed[key] = replace(fields[key], value=[values[token] for token in kept.tokens])
    for name, token in tables.special_ids.items():
        key = f"{PREFIX}{name}_token_id"
        changed[key] = replace(fields[key], value=new_ids[token])
    return {key: changed.get(key, field) for key, field in fields.items() if key != _DROPPED}


def vocabulary_of(base: Checkpoint) -> VocabularyList | None:
    """Which tokens of the full vocabulary a base keeps, also one that was trimmed again; None for all."""
    if isinstance(base, TrimmedCheckpoint):
        kept, earlier = base.kept, vocabulary_of(base.full)
        if earlier is None:
            return kept
        return replace(earlier, tokens=tuple(earlier.tokens[token] for token in kept.tokens))
    if base.path.is_dir():
        return None
    return read_vocabulary(base.header if isinstance(base, GgufCheckpoint) else read_header(base.path))
