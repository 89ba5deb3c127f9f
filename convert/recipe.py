"""The recipe of a file: everything that it is made from, and how the type of each tensor is chosen."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from gguf import GGML_QUANT_SIZES

from ..files.gguf.header import Header, read_header
from ..files.progress import Progress
from ..files.received_files import PROMPT_FILE
from .merged_model import MergedModel
from .source.architecture import OUTPUT
from .source.checkpoint import Checkpoint, open_checkpoint
from .tensors import GGML_TYPES, parse_type, plan_stored, plan_uniform
from .vocabulary.vocabulary_list import VocabularyList
from .write import FileLayout

DEFAULT_TYPE = "Q4_K"
SAME_TYPES = "same"  # the name of Same


class Quantization(Protocol):
    """Chooses the type of every tensor of a model. A new way to choose is one more class."""

    @property
    def keeps_output(self) -> bool:
        """Whether an output matrix that equals the token embedding is stored as well."""
        return False

    def plan(self, model: MergedModel, pool: ThreadPoolExecutor, progress: Progress) -> FileLayout:
        """Lay out the model's file; ThirteenError if it cannot be quantized so."""


@dataclass(frozen=True)
class Uniform(Quantization):
    """One type for all matrices, or llama.cpp's fallback for rows that its blocks do not divide."""

    type: str = DEFAULT_TYPE  # its name, in upper or lower case

    @property
    def text(self) -> str:
        return str(parse_type(self.type, SAME_TYPES).name)

    def plan(self, model: MergedModel, pool: ThreadPoolExecutor, progress: Progress) -> FileLayout:
        type_ = GGML_TYPES[self.text]
        plans, matrices = plan_uniform(model.specs, type_), {s.target for s in model.specs if s.is_matrix}
        others = [plan for plan in plans if plan.target in matrices and plan.type != type_]
        if others:
            name, columns, other = others[0].target, others[0].shape[1], others[0].type.name
            model.warnings.append(
                f"{len(others)} of {len(matrices)} matrices get another type, such as {name} {other}: its "
                f"rows of {columns} weights are no multiple of {GGML_QUANT_SIZES[type_][0]}, the block of "
                f"{type_.name}"
            )
        return FileLayout.planned(model.metadata(self.text), plans)


class Same(Quantization):
    """The type that each tensor has in the base."""

    text = SAME_TYPES

    def plan(self, model: MergedModel, pool: ThreadPoolExecutor, progress: Progress) -> FileLayout:
        types = {name: model.base.stored_type(name) for name in model.base.specs}
        plans = [plan_stored(spec, types.get(spec.source, GGML_TYPES["F32"])) for spec in model.specs]
        return FileLayout.planned(model.metadata(self.text), plans)


@dataclass(frozen=True)
class Like(Quantization):
    """The type that each tensor has in another GGUF, of the same model or of a fine-tune of it."""

    file: Path

    @property
    def keeps_output(self) -> bool:
        return OUTPUT in self._header.tensors

    @property
    def text(self) -> str:
        return str(self._header.metadata.get("thirteen.type", f"like {self.file.name}"))

    def plan(self, model: MergedModel, pool: ThreadPoolExecutor, progress: Progress) -> FileLayout:
        plans = [plan_stored(spec, self._header.tensors[spec.target].type) for spec in model.specs]
        return FileLayout.planned(model.metadata(self.text), plans)

    @cached_property
    def _header(self) -> Header:
        return read_header(self.file)


@dataclass(frozen=True)
class Recipe:
    """What a file is made from: files, all of which are here, and choices."""

    base: Path  # a folder of safetensors, or a GGUF
    output: Path | None = None  # the GGUF to write; None for a plan
    quantization: Quantization = field(default_factory=Uniform)  # how the type of each tensor is chosen
    adapter: Path | None = None  # a PEFT folder, merged into the base
    vocabulary: VocabularyList | None = None  # the tokens that the file keeps; None for all
    importance: Path | None = None  # importance file of the base, or better of the base with this adapter
    chat_template: str | None = None  # replaces that of the base; None to keep it
    # also search the scales of blocks, with the errors that are left after feedback
    search_scales: bool = False
    # names of base and adapter in the provenance; by default those of their folders or files
    ids: tuple[str, str] = ("", "")

    def open_base(self) -> Checkpoint:
        """Open the base.

        Raises:
            FileError: it is missing, damaged or unsupported.
        """
        return open_checkpoint(self.base, self.ids[0])

    def open(self) -> MergedModel:
        """Open the model to write."""
        tie = not self.quantization.keeps_output
        model = MergedModel(self.open_base(), self.adapter, self.ids[1], tie=tie)
        model.chat_template = self.chat_template
        if self.adapter and self.chat_template is None and (self.adapter / PROMPT_FILE).exists():
            model.warnings.append(
                f"the adapter was learned with a prompt: --prompt {self.adapter} writes it into the file"
            )
        model.weigh(self.importance, search_scales=self.search_scales)
        if self.vocabulary is not None:
            model.trim(self.vocabulary)
        return model
