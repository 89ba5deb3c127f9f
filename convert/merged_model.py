"""The model to write: a base with an adapter merged into its rows, in float32, and their quantizer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

from ..files.gguf.header import Field, row_bytes
from ..stats import Floats
from .adapter.adapter import adapter_sha256, load_adapter, peft_only_reason, read_adapter_config
from .adapter.delta import Delta
from .adapter.peft_merge import PeftMergedCheckpoint
from .provenance import AdapterSource, file_metadata
from .quantize.ggml import NEED_IMPORTANCE, dequantize_rows, quantize_rows
from .quantize.importance import Importance, fitting_importance, read_importance
from .quantize.rounding import RowQuantizer
from .source.architecture import EMBEDDING, OUTPUT, permute
from .source.checkpoint import FLOATS, Checkpoint, quantized_types
from .source.tokenizer import CHAT_TEMPLATE
from .tensors import TensorPlan, TensorSpec
from .vocabulary.vocabulary_list import TrimmedCheckpoint, VocabularyList

_BLOCK = 4096  # rows of two matrices that are compared at a time
_ROUNDING_MAX = 2.0  # a row's difference may be so many times its rounding error in the smaller type


class MergedModel:
    """A base with an optional adapter; rows are merged when they are read.

    Attributes:
        base: the base; if PEFT merges the adapter, the merged model; tied if it stores one matrix twice;
            trimmed if the model is.
        deltas: the adapter's change to each tensor, by name; empty if PEFT merges it.
        source: the adapter's origin; None without an adapter.
        importance: the importance of its matrices, if any.
        quantizer: quantizes its rows.
        chat_template: replaces that of the base; None to keep it.
        warnings: messages for the user.
    """

    def __init__(
        self, base: Checkpoint, adapter: Path | None = None, adapter_id: str = "", *, tie: bool = True
    ) -> None:
        """Read the adapter, if any.

        With `tie`, token embedding and output are presented as one matrix if they are equal or differ by
        rounding, the family can have one, and the adapter changes neither.

        Raises:
            FileError: the adapter is damaged, cannot be merged, or is for another base.
        """
        self.base = base
        self.deltas: dict[str, Delta] = {}
        self.source: AdapterSource | None = None
        self.warnings: list[str] = []
        self.importance: Importance | None = None
        self.quantizer = RowQuantizer(None)
        self.chat_template: str | None = None
        if adapter is not None:
            self._load(adapter, adapter_id or adapter.resolve().name)
        architecture = self.base.architecture
        tie = tie and not architecture.tied and architecture.family.tied is not False
        if tie and not any(map(self._changes, _matrix_names(self.base))):
            self.base, messages = _tie_embeddings(self.base)
            self.warnings += messages

    def weigh(self, importance: Path | None, *, search_scales: bool = False) -> None:
        """Quantize rows by the importance of their matrices.

        With `search_scales`, scales of blocks are searched where the importance has covariances.

        Raises:
            FileError: the importance file is invalid, or for another model.
        """
        if importance is not None:
            self.importance = fitting_importance(read_importance(importance), self.base)
        if search_scales and not (self.importance and self.importance.covariance_blocks):
            self.warnings.append("scales are not searched: the importance file has no covariances")
            search_scales = False
        self.quantizer = RowQuantizer(self.importance, search_scales=search_scales)

    def trim(self, vocabulary: VocabularyList) -> None:
        """Keep these tokens only; what the adapter changes in the rows of others is dropped."""
        self.base = trimmed = TrimmedCheckpoint(self.base, vocabulary)
        kept = np.array(vocabulary.tokens, np.int64)
        changed = {n: delta.select_rows(kept) for n, delta in self.deltas.items() if trimmed.is_trimmed(n)}
        self.deltas = self.deltas | changed
        if self.importance is not None:
            self.importance = self.importance.select_tokens(vocabulary.tokens)

    @property
    def specs(self) -> list[TensorSpec]:
        """The tensors of its file: those of the checkpoint, then the divisors of RoPE, if any."""
        divisors = (TensorSpec(name, name, one.shape) for name, one in self.base.rope_tensors.items())
        return [*self.base.specs.values(), *divisors]

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Read rows `start` to `stop` of a tensor, merged."""
        rows, merged = self.base_and_merged(name, start, stop)
        return rows if merged is None else merged

    def base_and_merged(self, name: str, start: int, stop: int) -> tuple[Floats, Floats | None]:
        """Rows of a tensor in the base, and with the adapter; None if the adapter does not change them."""
        rows, delta = self.base.rows(name, start, stop), self.deltas.get(name)
        return rows, None if delta is None else delta.merge(rows.copy(), start)

    def quantized(self, plan: TensorPlan, start: int, stop: int) -> bytes:
        """Rows `start` to `stop` of a tensor of the file, merged and quantized once."""
        if plan.source not in self.base.specs:
            divisors = self.base.rope_tensors[plan.source]
            return quantize_rows(divisors[start:stop], plan.type, f"tensor {plan.source!r}")
        if (stored := self.stored_rows(plan, start, stop)) is not None:
            return stored
        heads = self.base.specs[plan.source].heads * (stop - start) // plan.shape[0]
        rows, merged = self.base_and_merged(plan.source, start, stop)
        if heads:
            rows, merged = permute(rows, heads), None if merged is None else permute(merged, heads)
        delta = self.deltas.get(plan.source)
        return self.quantizer.quantize(plan, rows, merged, None if delta is None else delta.a)

    def metadata(self, requested: str) -> dict[str, Field]:
        """The file's metadata, with a placeholder for the hash of the base; see file_metadata()."""
        fields = file_metadata(self.base, self.source, self.importance, requested)
        scales = {"thirteen.scales": Field("searched", GGUFValueType.STRING)}
        template = self.chat_template and {CHAT_TEMPLATE: Field(self.chat_template, GGUFValueType.STRING)}
        return fields | (template or {}) | (scales if self.quantizer.search_scales else {})

    def stored_rows(self, plan: TensorPlan, start: int, stop: int) -> bytes | None:
        """Rows that the base already has in the planned type; None if there are none, or if they change.

        They are copied. To dequantize them and quantize them again would not give the same bytes.
        """
        if plan.source in self.deltas or self.base.stored_type(plan.source) is not plan.type:
            return None
        return self.base.stored_rows(plan.source, start, stop)

    def warn_of_requantization(self, plans: Sequence[TensorPlan]) -> None:
        """Add a warning if tensors that are quantized in the base are quantized again."""
        if any(map(self._requantized, plans)):
            types = ", ".join(f"{count} {name}" for name, count in quantized_types(self.base).items())
            self.warnings.insert(
                0, f"the base is already quantized ({types}): quantizing it again adds to its error"
            )

    def prepare(self, plan: TensorPlan) -> None:
        """Compute what all blocks of a tensor share, so that none of them waits for it."""
        delta = self.deltas.get(plan.source)
        self.quantizer.prepare(plan, None if delta is None else delta.a)

    def _requantized(self, plan: TensorPlan) -> bool:
        if plan.source not in self.base.specs or self.base.stored_type(plan.source) in FLOATS:
            return False
        return self.stored_rows(plan, 0, 1) is None

    def _changes(self, name: str) -> bool:
        by_peft = isinstance(self.base, PeftMergedCheckpoint) and self.base.changes(name)
        return by_peft or name in self.deltas

    def _load(self, folder: Path, adapter_id: str) -> None:
        config = read_adapter_config(folder)
        if reason := peft_only_reason(config):
            self.base = PeftMergedCheckpoint(self.base, folder)
            kind = str(config.get("peft_type"))
            self.source = AdapterSource(adapter_id, adapter_sha256(folder), kind, None, None, "peft")
            self.warnings.append(f"{adapter_id} was merged by PEFT, with the whole model in memory: {reason}")
            return
        adapter = load_adapter(folder, adapter_id).for_base(self.base)
        self.deltas = adapter.deltas
        self.source = AdapterSource(
            adapter_id, adapter.sha256, adapter.kind, adapter.rank, adapter.trained_parameters, "thirteen"
        )


def _matrix_names(base: Checkpoint) -> tuple[str, str]:
    """Names of the token embedding and the output of an untied base."""
    names = {spec.target: name for name, spec in base.specs.items()}
    return names[EMBEDDING], names[OUTPUT]


def _tie_embeddings(base: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """Present a matrix that an untied base stores twice, equal or differing by rounding only, as one.

    Many GGUF files of models with tied embeddings have two, in types of their own, which differ by rounding.

    Returns:
        The base, tied or as it is, and messages for the user.
    """
    embedding, output = _matrix_names(base)
    rows, columns = base.specs[output].shape
    nbytes = {name: rows * row_bytes(columns, base.stored_type(name)) for name in (embedding, output)}
    dropped, kept = sorted(nbytes, key=lambda name: nbytes[name])
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        part, other = base.rows(kept, start, stop), base.rows(dropped, start, stop)
        rounding = _rounding_errors(part, base.stored_type(dropped))
        if not (np.linalg.norm(other - part, axis=1) <= _ROUNDING_MAX * rounding).all():
            return base, []
    types = " and ".join(base.stored_type(name).name for name in nbytes)
    return Checkpoint(base, replace(base.architecture, tied=True), {embedding: kept}), [
        f"{EMBEDDING} and {OUTPUT} are one matrix, in {types}: it is stored once, which saves "
        f"{nbytes[dropped]:,} bytes of the base"
    ]


def _rounding_errors(rows: Floats, type_: GGMLQuantizationType) -> Floats:
    """What rounding to a type changes in each row, (rows,)."""
    importance = np.ones(rows.shape[1], np.float32) if type_ in NEED_IMPORTANCE else None
    data = quantize_rows(rows, type_, f"tensor {EMBEDDING!r}", importance)
    rounded = dequantize_rows(np.frombuffer(data, np.uint8).reshape(len(rows), -1), type_)
    return np.asarray(np.linalg.norm(rounded - rows, axis=1))
