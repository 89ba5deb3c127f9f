"""The recipe of a file: everything that it is made from."""

from dataclasses import dataclass, field
from pathlib import Path

from ..files.received_files import PROMPT_FILE
from .merged_model import MergedModel
from .provenance import DEFAULT_IDS, SourceIds
from .quantization import Quantization, Uniform
from .source.checkpoint import Checkpoint, open_checkpoint
from .vocabulary.vocabulary_list import VocabularyList


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
    ids: SourceIds = DEFAULT_IDS  # names of base and adapter in the provenance

    def open_base(self) -> Checkpoint:
        """Open the base.

        Raises:
            FileError: it is missing, damaged or unsupported.
        """
        return open_checkpoint(self.base, self.ids.base)

    def open(self) -> MergedModel:
        """Open the model to write."""
        tie = not self.quantization.keeps_output
        model = MergedModel(self.open_base(), self.adapter, self.ids.adapter, tie=tie)
        model.chat_template = self.chat_template
        if self.adapter and self.chat_template is None and (self.adapter / PROMPT_FILE).exists():
            model.warnings.append(
                f"the adapter was learned with a prompt: --prompt {self.adapter} writes it into the file"
            )
        if self.vocabulary is not None:
            model = model.trimmed(self.vocabulary)
        return model.weighted(self.importance, search_scales=self.search_scales)
