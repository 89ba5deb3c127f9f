"""A base with fewer tokens: fewer rows of the embedding and of the output, and a tokenizer to match.

A text whose original tokens are all kept gets exactly these tokens, renumbered. BPE joins, within a word, the
pair of the lowest rank until no pair has one. The trimmed tokenizer has the merges whose parts and result are
kept, in the original order. Suppose that both tokenizers have the same symbols so far, as they have at the
start, where symbols are bytes. The original joins its pair of the lowest rank. The result lies within a final
token, and no later merge crosses that token's bounds; so it is a result of BPE over that token's own text,
which is kept because the list is closed under merges. The trimmed tokenizer therefore has this merge, and no
merge of a lower rank, as none was added: it joins the same pair. Where the original has no pair left, neither
has the trimmed one. A tokenizer with `ignore_merges` takes a word that is a token as a whole: if the word was
a token and is kept, both do so, and if it was none, both merge. Control and user-defined tokens are found in
the text before all this, the longest first; a text without dropped ones is divided alike.

For a SentencePiece vocabulary the same holds: its merges are the pairs that make a token, its ranks the
scores, and its symbols characters, of which those in a kept token are kept. A character without a token
becomes its bytes in both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError
from ...files.gguf.header import Field
from ...stats.arrays import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint
from .tokenizer_tables import PREFIX, TokenizerTables
from .vocabulary_list import VocabularyList, check_list

_BY_TOKEN = [f"{PREFIX}{name}" for name in ("tokens", "token_type", "scores")]
# A copy of tokenizer.json, which llama.cpp does not read: it would describe the full vocabulary.
_DROPPED = "tokenizer.huggingface.json"
# Kept rows are read with the dropped ones between them: at most so many at once, and over such gaps.
_SPAN, _GAP = 1024, 16


class TrimmedCheckpoint(Checkpoint):
    """A Checkpoint that presents only the kept tokens of another.

    Attributes:
        full: the base with all tokens.
        kept: the list.
    """

    def __init__(self, full: Checkpoint, kept: VocabularyList) -> None:
        """Trim a base.

        Raises:
            FileError: the list does not fit the base, or the tokenizer cannot be trimmed.
        """
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
        while ids.size:
            gaps = np.flatnonzero(np.diff(ids) > _GAP)
            count = int(gaps[0]) + 1 if gaps.size else len(ids)
            count = min(count, int(np.searchsorted(ids, ids[0] + _SPAN)))
            first, last = int(ids[0]), int(ids[count - 1]) + 1
            yield first, last, ids[:count] - first
            ids = ids[count:]


def trimmed_fields(
    fields: Mapping[str, Field], tables: TokenizerTables, kept: VocabularyList
) -> dict[str, Field]:
    """Metadata of the tokenizer with only the kept tokens, renumbered.

    Args:
        fields: metadata of the full tokenizer.
        tables: its tables.
        kept: a list that check_list() accepts for it.

    Raises:
        FileError: no merge is left, which llama.cpp cannot load.
    """
    changed = {}
    if tables.scores is None:
        merges = [
            f"{tables.tokens[left]} {tables.tokens[right]}"
            for left, right, _ in tables.merges_among(kept.tokens).tolist()
        ]
        if not merges:
            raise FileError(f"{tables.where}: {len(kept.tokens)} kept tokens leave no merge")
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
