"""Lists of the tokens of a base that a file keeps, and the base with only these.

A list is in the metadata of a GGUF. A trimmed base has fewer rows of the embedding and
of the output, and a tokenizer to match.

A text whose original tokens are all kept gets exactly these tokens, renumbered. BPE joins, within a word, the
pair of the lowest rank, the leftmost of several. No merge crosses the bounds of a final token, so the merges
within one are those of BPE over that token's own text. A list is closed under merges: it has their results.
So while both tokenizers have the same symbols, as at the start, the trimmed one has the merge that the
original does next, and none of a lower rank. Words that `ignore_merges` takes as a whole, and control and
user-defined tokens, which are found before all this, are kept or not in both alike. The same holds for
SentencePiece: its merges are the pairs that make a token, its ranks the scores, its symbols characters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from ...files.gguf.header import Field, Header, read_header
from ...stats import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint, GgufCheckpoint
from .tokenizer_tables import PREFIX, TokenizerTables

_KEPT = "thirteen.vocabulary."
_MAX_TOKENS = 1 << 24
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
    if len(tokens) != count or any(token >= after for token, after in pairwise((*tokens, of))):
        raise header.error(
            f"metadata key '{_KEPT}tokens' has {len(tokens)} ids, not {count} ascending ones below {of}"
        )
    return VocabularyList(tuple(tokens), of, header.value(f"{_KEPT}tokenizer_sha256", _TEXT))


class TrimmedCheckpoint(Checkpoint):
    """A Checkpoint that presents only the kept tokens of another, `full`."""

    def __init__(self, full: Checkpoint, kept: VocabularyList) -> None:
        """Trim a base to a list of its tokens; FileError if its tokenizer cannot be trimmed."""
        super().__init__(full, replace(full.architecture, vocab=len(kept.tokens)))
        self.kept = kept
        self._fields = full.tokenizer
        self._tables = TokenizerTables.from_fields(self._fields, str(full.path))
        assert kept.tokenizer_sha256 == self._tables.sha256, "the list is of another tokenizer"
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
    """Metadata of the tokenizer with only the kept tokens, renumbered."""
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
