"""A base with fewer tokens: fewer rows of the embedding and of the output, and a tokenizer to match."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...files.gguf.header import Field
from ...stats.arrays import Floats
from ..source.architecture import EMBEDDING, OUTPUT
from ..source.checkpoint import Checkpoint, WrappedCheckpoint
from .tokenizer_tables import TokenizerTables
from .trimmed_tokenizer import trimmed_fields
from .vocabulary_list import VocabularyList, check_list

# Kept rows are read with the dropped ones between them: at most so many at once, and over such gaps.
_SPAN, _GAP = 1024, 16


class TrimmedCheckpoint(WrappedCheckpoint):
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
