"""A base with an adapter merged into its rows as they are read, in float32."""

from pathlib import Path

from ..files.safetensors import Rows
from .adapter.adapter import adapter_sha256, load_adapter, peft_only_reason, read_adapter_config
from .adapter.delta import Delta
from .provenance import AdapterSource
from .source.checkpoint import Checkpoint


class MergedView:
    """A base with an optional adapter; rows are merged when they are read.

    Attributes:
        base: the base; if PEFT merges the adapter, the merged model.
        deltas: the adapter's change to each tensor, by name; empty if PEFT merges it.
        source: the adapter's origin; None without an adapter.
        warnings: messages for the user.
    """

    def __init__(self, base: Checkpoint, folder: Path | None, adapter_id: str) -> None:
        """Read the adapter in `folder`, if any.

        Raises:
            AdapterError: it is damaged, cannot be merged, or is for another base.
        """
        self.base = base
        self.deltas: dict[str, Delta] = {}
        self.source: AdapterSource | None = None
        self.warnings: list[str] = []
        if base.quantized:
            types = ", ".join(f"{count} {name}" for name, count in base.quantized.items())
            self.warnings.append(
                f"the base is already quantized ({types}): quantizing it again adds to its error"
            )
        if folder is not None:
            self._load(folder, adapter_id or folder.resolve().name)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Read rows `start` to `stop` of a tensor, merged."""
        rows = self.base.rows(name, start, stop)
        return self.deltas[name].merge(rows, start) if name in self.deltas else rows

    def _load(self, folder: Path, adapter_id: str) -> None:
        reason = peft_only_reason(read_adapter_config(folder))
        if reason:
            from .adapter.peft_merge import PeftMergedCheckpoint  # noqa: PLC0415 - imports torch

            self.base = merged = PeftMergedCheckpoint(self.base, folder)
            self.source = AdapterSource(adapter_id, adapter_sha256(folder), merged.kind, None, None, "peft")
            self.warnings.append(f"{adapter_id} was merged by PEFT, with the whole model in memory: {reason}")
            return
        adapter = load_adapter(folder, adapter_id)
        adapter.check_fits(self.base)
        self.deltas = adapter.deltas
        self.source = AdapterSource(
            adapter_id, adapter.sha256, adapter.kind, adapter.rank, adapter.trained_parameters, "thirteen"
        )
        if adapter.zero_deltas:
            self.warnings.append(f"{len(adapter.zero_deltas)} of {len(adapter.deltas)} deltas are zero")
