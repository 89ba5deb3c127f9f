"""A conversion as a person asks for it, with names; resolved, it has files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType

from ..convert.fit_size import PREFERENCES, FitSize
from ..convert.quantization import DEFAULT_TYPE, SAME_TYPES, Quantization, Same, Uniform
from ..convert.quantize.costs import costs_for, ordinary_costs, read_costs
from ..convert.recipe import Recipe
from ..convert.size_text import parse_file_size
from ..convert.source.architecture import OUTPUT
from ..convert.source.checkpoint import FLOATS, Checkpoint, open_checkpoint
from ..convert.source.tokenizer import CHAT_TEMPLATE
from ..convert.tensors import count_weights, parse_type
from ..convert.vocabulary.vocabulary_list import VocabularyList
from ..errors import OptionError, RequestError, refuse_options
from ..files.output import check_target
from ..files.progress import QUIET, Run
from ..models.adapter import resolve_sources
from ..models.texts import CALIBRATION
from ..runtime.prompt.question_prompt import QuestionPrompt
from .conversion import AUTO, Conversion
from .importance_cache import NORMAL, THOROUGH, Calibration, check_thoroughness


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """Options of a conversion.

    Attributes:
        base: catalogue name, hub id, folder of safetensors, or GGUF.
        output: the GGUF to write; None to plan one.
        adapter: PEFT folder, hub id, catalogue name, or short code.
        prompt: adapter folder, or file, whose prompt is written into the chat template.
        type: ggml type, or `same` for those of the base; by default Q4_K.
        size: maximum file size instead of a type: 600MB, 572MiB or 3.9bpw.
        vocabulary: tokens to keep: their number, the file of a list, or `auto` for as many as lose the least.
        vocabulary_texts: texts of one's own to choose these tokens on.
        importance: importance file; by default it is measured once where it is needed, and cached.
        calibration: texts to measure it on.
        thoroughness: how much of them is read: quick, normal or thorough, which also searches the scales of
            blocks.
        target: processors to plan for; by default this one, whose costs are measured on first use.
        prefer: `quality` or `speed`; by default between the two.
        costs: file of costs that `bench types` measured.
        library: the library that will run the file, llama.cpp, ik or auto; by default as for an engine.
        fidelity: whether to compare the file with F16; by default with an adapter only.
        replace: whether the output may replace a file.
    """

    base: str
    output: Path | None = None
    adapter: str | None = None
    prompt: Path | None = None
    type: str | None = None
    size: str | None = None
    vocabulary: str | None = None
    vocabulary_texts: Path | None = None
    importance: Path | None = None
    calibration: Path | None = None
    thoroughness: str | None = None
    target: str | None = None
    prefer: str | None = None
    costs: Path | None = None
    library: str | None = None
    fidelity: bool | None = None
    replace: bool = True

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        for one, other in (
            *(("type", "size"), ("costs", "target")),
            *(("library", "target"), ("library", "costs")),
        ):
            if getattr(self, one) and getattr(self, other):
                raise OptionError(one, f"cannot be given with {{{other}}}", getattr(self, one))
        if self.size is None:
            refuse_options(self, "requires {size}", "target", "prefer", "costs", "library")
            if self.vocabulary == AUTO:
                raise OptionError("vocabulary", "requires {size}", AUTO)
        elif parse_file_size(self.size).unit is None and self.vocabulary == AUTO:
            raise OptionError("size", "{vocabulary} auto requires a size in bytes, such as 600MB", self.size)
        if self.vocabulary_texts and not self._chosen:
            raise OptionError("vocabulary_texts", "requires {vocabulary} with a number of tokens")
        if self.importance:
            refuse_options(self, "{importance} is given, so none is measured", "calibration")
        if self.prefer not in PREFERENCES:
            raise OptionError("prefer", "must be quality or speed", self.prefer)
        check_thoroughness(self.thoroughness or NORMAL)
        self._check_named()

    def _check_named(self) -> None:
        if self.type not in (None, SAME_TYPES) and parse_type(self.type, SAME_TYPES) in FLOATS:
            refuse_options(self, "nothing is rounded in blocks", "thoroughness", "calibration", "importance")
        if self.target is not None:
            costs_for(self.target)
        if self.costs:
            read_costs(self.costs)
        if self.importance and self.thoroughness not in (None, THOROUGH):
            raise OptionError("thoroughness", "{importance} is given, so none is measured", self.thoroughness)
        for path in filter(None, (self.importance, self.calibration, self.vocabulary_texts)):
            if not path.exists():
                raise RequestError(f"{path}: no such file")

    @property
    def files(self) -> Iterator[Path]:
        """The files and folders that are read, as far as they are here."""
        names = ("base", "adapter", "vocabulary")
        paths = (self.vocabulary_texts, self.importance, self.calibration, self.costs)
        yield from (Path(name) for name in (getattr(self, one) for one in names) if name and _exists(name))
        yield from filter(None, (*paths, self.prompt))

    def resolve(self, run: Run = QUIET) -> Conversion:
        """Check the fields, and find what they name: what follows knows files and choices, and no names.

        Raises:
            ThirteenError: a field is invalid, a name is unknown, or the output cannot be written.
        """
        self.check()
        if self.output:
            check_target(self.output, *self.files, replace=self.replace)
        base, adapter, ids = resolve_sources(self.base, self.adapter, run)
        if self.size and not self.vocabulary:
            specs = open_checkpoint(base).specs.values()
            parse_file_size(self.size).check_least(count_weights(s for s in specs if s.target != OUTPUT))
        listed = Path(self.vocabulary) if self.vocabulary and not self._chosen else None
        recipe = Recipe(
            base,
            self.output,
            self._quantization(run),
            adapter=adapter,
            vocabulary=VocabularyList.load(listed) if listed else None,
            importance=self.importance,
            chat_template=_with_prompt(self.prompt, open_checkpoint(base)) if self.prompt else None,
            search_scales=self.thoroughness == THOROUGH,
            ids=ids,
        )
        compared = adapter is not None if self.fidelity is None else self.fidelity
        return Conversion(recipe, self._calibration, self._chosen, self.vocabulary_texts, compared)

    @property
    def _chosen(self) -> str | None:
        """The number of tokens to choose, or `auto`; None if there is a list, or nothing to choose."""
        number = self.vocabulary is not None and self.vocabulary.isascii() and self.vocabulary.isdigit()
        return self.vocabulary if number or self.vocabulary == AUTO else None

    @property
    def _calibration(self) -> Calibration | None:
        """What the importance is measured on, if it is."""
        if self.importance or not (self.size or self.calibration or self.thoroughness):
            return None
        return Calibration(self.calibration or CALIBRATION, self.thoroughness or NORMAL)

    def _quantization(self, run: Run) -> Quantization:
        if self.size is None:
            return Same() if self.type == SAME_TYPES else Uniform(self.type or DEFAULT_TYPE)
        if self.costs:
            tables = [read_costs(self.costs)]
        elif self.target:
            tables = [costs_for(self.target)]
        else:
            from ..quality.costs.machine_costs import library_costs  # noqa: PLC0415 - others need none of it

            tables = library_costs(self.library, run.when_needed("types"))
        first, *others = map(ordinary_costs, tables)
        return FitSize(parse_file_size(self.size), self.prefer, first, tuple(others))


def _with_prompt(prompt: Path, base: Checkpoint) -> str:
    """The chat template of a base with a prompt in it."""
    fields = base.tokenizer
    if CHAT_TEMPLATE not in fields:
        raise OptionError("prompt", f"{base.id} has no chat template", prompt)
    tokens = zip(
        fields["tokenizer.ggml.tokens"].value, fields["tokenizer.ggml.token_type"].value, strict=True
    )
    names = [name for name, kind in tokens if kind == TokenType.CONTROL]
    return QuestionPrompt.read(prompt).in_template(fields[CHAT_TEMPLATE].value, names)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists() raises for a code that is too long
