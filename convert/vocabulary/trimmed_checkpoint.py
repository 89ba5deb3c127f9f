"""A base with fewer tokens: fewer rows of the embedding and of the output, and a tokenizer to match."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from ...files.gguf.header import Field
from ...files.safetensors import Rows
from ..source.architecture import EMBEDDING, OUTPUT, tensor_specs
from ..source.checkpoint import Checkpoint
from .tokenizer_tables import TokenizerTables
from .trimmed_tokenizer import trimmed_fields
from .vocabulary_list import VocabularyList, check_list

# Kept rows are read with the dropped ones between them: at most so many at once, and over such gaps.
_SPAN, _GAP = 1024, 16


class TrimmedCheckpoint:
    """A Checkpoint that presents only the kept tokens of another.

    Attributes:
        full: the base with all tokens.
        kept: the list.
    """

    def __init__(self, full: Checkpoint, kept: VocabularyList) -> None:
        """Trim a base.

        Raises:
            VocabularyError: the list does not fit the base, or the tokenizer is not byte-level BPE.
        """
        self.full, self.kept = full, kept
        self.id, self.path = full.id, full.path
        self._fields = full.tokenizer
        self._tables = TokenizerTables.from_fields(self._fields, str(full.path))
        check_list(kept, self._tables)
        self._ids = np.array(kept.tokens, np.int64)  # (kept,)
        self.architecture = replace(full.architecture, vocab=len(kept.tokens))
        self.specs = tensor_specs(self.architecture)

    @property
    def quantized(self) -> Mapping[str, int]:
        """See Checkpoint."""
        return self.full.quantized

    def is_trimmed(self, name: str) -> bool:
        """Whether a tensor has one row for each token."""
        return self.specs[name].target in (EMBEDDING, OUTPUT)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """See Checkpoint."""
        if not self.is_trimmed(name):
            return self.full.rows(name, start, stop)
        return np.concatenate(
            [self.full.rows(name, first, last)[chosen] for first, last, chosen in self._spans(start, stop)]
        )

    def stored_type(self, name: str) -> GGMLQuantizationType:
        """See Checkpoint."""
        return self.full.stored_type(name)

    def stored_rows(self, name: str, start: int, stop: int) -> bytes | None:
        """See Checkpoint."""
        if not self.is_trimmed(name):
            return self.full.stored_rows(name, start, stop)
        parts = []
        for first, last, chosen in self._spans(start, stop):
            stored = self.full.stored_rows(name, first, last)
            if stored is None:
                return None
            parts.append(np.frombuffer(stored, np.uint8).reshape(last - first, -1)[chosen].tobytes())
        return b"".join(parts)

    @property
    def rope_factors(self) -> Rows | None:
        """See Checkpoint."""
        return self.full.rope_factors

    @cached_property
    def tokenizer(self) -> dict[str, Field]:
        """See Checkpoint."""
        return trimmed_fields(self._fields, self._tables, self.kept)

    def sha256(self) -> str:
        """The hash of the full base."""
        return self.full.sha256()

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
