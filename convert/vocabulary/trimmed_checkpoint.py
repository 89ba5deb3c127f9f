"""A base with fewer tokens: fewer rows of the embedding and of the output, and a tokenizer to match.

A text whose original tokens are all kept gets exactly these tokens, renumbered. BPE joins, within a word, the
pair of the lowest rank, the leftmost of several. No merge crosses the bounds of a final token, so the merges
within one are those of BPE over that token's own text. A list is closed under merges: it has their results.
So while both tokenizers have the same symbols, as at the start, the trimmed one has the merge that the
original does next, and none of a lower rank. Words that `ignore_merges` takes as a whole, and control and
user-defined tokens, which are found before all this, are kept or not in both alike. The same holds for
SentencePiece: its merges are the pairs that make a token, its ranks the scores, its symbols characters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...files.gguf.header import Field, read_header
from ...stats.arrays import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint, GgufCheckpoint
from .tokenizer_tables import PREFIX, TokenizerTables
from .vocabulary_list import VocabularyList, check_list, read_vocabulary

_BY_TOKEN = [f"{PREFIX}{name}" for name in ("tokens", "token_type", "scores")]
# A copy of tokenizer.json, which llama.cpp does not read: it would describe the full vocabulary.
_DROPPED = "tokenizer.huggingface.json"
_SPAN = 1024  # kept rows are read with the dropped ones between them, at most so many at once


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
