"""A base with an adapter merged into its rows as they are read, in float32."""

from dataclasses import dataclass
from pathlib import Path

from ..files.safetensors import Rows
from .adapter.adapter import folder_sha256, foreign_reason, load_adapter, read_config
from .adapter.delta import Delta
from .source.checkpoint import Checkpoint


@dataclass(frozen=True)
class WeightsSource:
    """Where weights came from: the name that the user gave, and the hash of the bytes."""

    id: str
    sha256: str


@dataclass(frozen=True)
class AdapterSource(WeightsSource):
    """The adapter, and who merged it: `thirteen` block by block, or `peft` in memory."""

    kind: str
    rank: int | None
    trained: int | None
    merged_by: str


class MergedView:
    """A base, merged with an adapter if there is one.

    Attributes:
        base: the base; where PEFT merges the adapter, what PEFT made of it.
        deltas: what the adapter does to each tensor, by name; none where PEFT merges it.
        source: the adapter, if there is one.
        warnings: what is to be known about it.
    """

    def __init__(self, base: Checkpoint, folder: Path | None, id_: str) -> None:
        """Read the adapter in `folder`, which `id_` names in the provenance.

        Raises:
            AdapterError: it is damaged, cannot be merged, or is not one for this base.
        """
        self.base = base
        self.deltas: dict[str, Delta] = {}
        self.source: AdapterSource | None = None
        self.warnings: list[str] = []
        if base.quantized:
            held = ", ".join(f"{count} {name}" for name, count in base.quantized.items())
            self.warnings.append(
                f"the base was already quantized ({held}): rounding it again adds to that loss"
            )
        if folder is not None:
            self._adopt(folder, id_ or folder.resolve().name)

    def rows(self, name: str, start: int, stop: int) -> Rows:
        """Rows `start` to `stop` of a tensor, merged."""
        rows = self.base.rows(name, start, stop)
        return self.deltas[name].merge(rows, start) if name in self.deltas else rows

    def _adopt(self, folder: Path, id_: str) -> None:
        reason = foreign_reason(read_config(folder))
        if reason:
            from .adapter.peft_merge import PeftMerge  # noqa: PLC0415 - torch, only for those who need it

            self.base = merged = PeftMerge(self.base, folder)
            self.source = AdapterSource(id_, folder_sha256(folder), merged.kind, None, None, "peft")
            self.warnings.append(f"{id_} was merged by PEFT, with the whole model in memory: {reason}")
            return
        adapter = load_adapter(folder, id_)
        adapter.fit(self.base)
        self.deltas = adapter.deltas
        self.source = AdapterSource(
            id_, adapter.sha256, adapter.kind, adapter.rank, adapter.trained, "thirteen"
        )
        if adapter.zeros:
            self.warnings.append(f"{len(adapter.zeros)} of {len(adapter.deltas)} deltas are zero")
