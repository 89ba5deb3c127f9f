"""A base with an adapter merged into its rows as they are read, in float32."""

from pathlib import Path

import numpy as np

from ..files.safetensors import Rows
from .adapter.adapter import adapter_sha256, load_adapter, peft_only_reason, read_adapter_config
from .adapter.delta import Delta
from .adapter.peft_merge import PeftMergedCheckpoint
from .provenance import AdapterSource
from .source.checkpoint import Checkpoint
from .tied_checkpoint import matrix_names, tie_embeddings
from .vocabulary.trimmed_checkpoint import TrimmedCheckpoint
from .vocabulary.vocabulary_list import VocabularyList


class MergedView:
    """A base with an optional adapter; rows are merged when they are read.

    Attributes:
        base: the base; if PEFT merges the adapter, the merged model; tied if asked for; with a vocabulary,
            trimmed to it.
        deltas: the adapter's change to each tensor, by name; empty if PEFT merges it.
        source: the adapter's origin; None without an adapter.
        warnings: messages for the user.
    """

    def __init__(
        self,
        base: Checkpoint,
        folder: Path | None,
        adapter_id: str,
        vocabulary: VocabularyList | None = None,
        *,
        tie: bool = True,
    ) -> None:
        """Read the adapter in `folder`, if any.

        The adapter is for the full base. What it changes in the rows of dropped tokens is dropped with them.
        With `tie`, token embedding and output are presented as one matrix if they are equal or differ by
        rounding, and the adapter changes neither.

        Raises:
            AdapterError: it is damaged, cannot be merged, or is for another base.
            VocabularyError: the vocabulary does not fit the base.
        """
        self.base = base
        self.deltas: dict[str, Delta] = {}
        self.source: AdapterSource | None = None
        self.warnings: list[str] = []
        if folder is not None:
            self._load(folder, adapter_id or folder.resolve().name)
        if tie and not self.base.architecture.tied and not any(map(self._changes, matrix_names(self.base))):
            self.base, messages = tie_embeddings(self.base)
            self.warnings += messages
        if vocabulary is not None:
            self._trim(vocabulary)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Read rows `start` to `stop` of a tensor, merged."""
        rows = self.base.rows(name, start, stop)
        return self.deltas[name].merge(rows, start) if name in self.deltas else rows

    def _changes(self, name: str) -> bool:
        """Whether the adapter changes a tensor."""
        by_peft = isinstance(self.base, PeftMergedCheckpoint) and self.base.changes(name)
        return by_peft or name in self.deltas

    def _trim(self, vocabulary: VocabularyList) -> None:
        self.base = trimmed = TrimmedCheckpoint(self.base, vocabulary)
        kept = np.array(vocabulary.tokens, np.int64)
        self.deltas = {
            name: delta.select_rows(kept) if trimmed.is_trimmed(name) else delta
            for name, delta in self.deltas.items()
        }

    def _load(self, folder: Path, adapter_id: str) -> None:
        reason = peft_only_reason(read_adapter_config(folder))
        if reason:
            self.base = merged = PeftMergedCheckpoint(self.base, folder)
            self.source = AdapterSource(adapter_id, adapter_sha256(folder), merged.kind, None, None, "peft")
            self.warnings.append(f"{adapter_id} was merged by PEFT, with the whole model in memory: {reason}")
            return
        adapter = load_adapter(folder, adapter_id).for_base(self.base)
        self.deltas = adapter.deltas
        self.source = AdapterSource(
            adapter_id, adapter.sha256, adapter.kind, adapter.rank, adapter.trained_parameters, "thirteen"
        )
        if adapter.zero_deltas:
            self.warnings.append(f"{len(adapter.zero_deltas)} of {len(adapter.deltas)} deltas are zero")
