"""The model to write: a merged view, with the importance of its matrices and the quantizer of its rows."""

from collections.abc import Sequence
from pathlib import Path

from ..files.gguf.header import Field
from .merged_view import MergedView
from .provenance import file_metadata, scale_fields
from .quantize.importance import fitting_importance, read_importance
from .quantize.rounding import RowQuantizer
from .source.architecture import ROPE_FACTORS
from .source.checkpoint import FLOATS, Checkpoint
from .tensors import TensorPlan
from .vocabulary.vocabulary_list import VocabularyList


class MergedModel(MergedView):
    """The merged model, and the quantizer of its rows."""

    def __init__(  # noqa: PLR0913 - inputs of a conversion
        self,
        base: Checkpoint,
        folder: Path | None,
        adapter_id: str,
        importance: Path | None,
        vocabulary: VocabularyList | None,
        *,
        search_scales: bool = False,
    ) -> None:
        self._settings = scale_fields(searched=search_scales)
        super().__init__(base, folder, adapter_id, vocabulary)
        self.importance = fitting_importance(read_importance(importance), self.base) if importance else None
        if search_scales and not (self.importance and self.importance.covariance_blocks):
            self.warnings.append(
                "scales are not searched: the covariances of `thirteen importance` are missing"
            )
        self.quantizer = RowQuantizer(self.importance, search_scales=search_scales)

    def metadata(self, requested: str, base_sha256: str = "0" * 64) -> dict[str, Field]:
        """The file's metadata; its size does not depend on the hash of the base."""
        return file_metadata(self.base, self.source, self.importance, requested, base_sha256) | self._settings

    def stored_rows(self, plan: TensorPlan, start: int, stop: int) -> bytes | None:
        """Rows that the base already has in the planned type; None if there are none, or if they change.

        They are copied. To dequantize them and quantize them again would not give the same bytes.
        """
        if plan.source in self.deltas or self.base.stored_type(plan.source) is not plan.type:
            return None
        return self.base.stored_rows(plan.source, start, stop)

    def warn_of_requantization(self, plans: Sequence[TensorPlan]) -> None:
        """Add a warning if tensors that are quantized in the base are quantized again."""
        if self.base.quantized and any(self._requantized(plan) for plan in plans):
            types = ", ".join(f"{count} {name}" for name, count in self.base.quantized.items())
            self.warnings.insert(
                0, f"the base is already quantized ({types}): quantizing it again adds to its error"
            )

    def _requantized(self, plan: TensorPlan) -> bool:
        if plan.source == ROPE_FACTORS or self.base.stored_type(plan.source) in FLOATS:
            return False
        return self.stored_rows(plan, 0, 1) is None

    def prepare(self, plan: TensorPlan) -> None:
        """Compute what all blocks of a tensor share, so that none of them waits for it."""
        delta = self.deltas.get(plan.source)
        self.quantizer.prepare(plan, None if delta is None else delta.a)
