"""A conversion as a person asks for it, with names; resolved, it has files; then it is measured."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from gguf import TokenType

from ..convert.adapter.adapter import adapter_sha256
from ..convert.calibration.activation_stats import collect_activation_stats
from ..convert.convert import ConversionReport, convert
from ..convert.fit_size import PREFERENCES, FitSize, parse_file_size
from ..convert.merged_model import MergedModel
from ..convert.provenance import write_tokenizer_file
from ..convert.quantize.costs import CostTable, find_costs, host_costs, ordinary_costs
from ..convert.quantize.importance import write_importance
from ..convert.recipe import DEFAULT_TYPE, SAME_TYPES, Quantization, Recipe, Same, Uniform
from ..convert.source.architecture import OUTPUT
from ..convert.source.checkpoint import FLOATS, Checkpoint, open_checkpoint
from ..convert.source.tokenizer import CHAT_TEMPLATE
from ..convert.tensors import count_weights, parse_type
from ..errors import OptionError, RequestError, refuse_options
from ..files.cache_folder import cache_key, cached, temporary_folder
from ..files.gguf.header import read_header
from ..files.output import check_target
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from ..runtime.llama.model import Model
from ..runtime.llama.settings import IK, LLAMA
from ..runtime.machine import default_threads
from ..runtime.prompt.question_prompt import QuestionPrompt
from .adapter import resolve_sources
from .passages import CALIBRATION, chunk_passages, read_passages
from .vocabulary_choice import choose_vocabulary

_METHOD = "6"  # incremented when the measurement changes, so that older files are not reused
_CHUNK_SIZE = 512  # tokens
# Most chunks by thoroughness, spread over the text; docs/figures.md has the KL of files planned with each.
CHUNKS = {"quick": 6, "normal": 12, "thorough": 36}
NORMAL = "normal"
THOROUGH = "thorough"  # with which a conversion also searches the scales of blocks
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """A recipe, and what is measured for it.

    Attributes:
        thoroughness: how much text its importance is measured on; None if that is given, or not needed.
    """

    recipe: Recipe  # what the file is made from, as far as nothing is measured for it
    thoroughness: str | None = None
    tokens: int | None = None  # the number of tokens to choose; None to choose none
    texts: Path | None = None  # passages of one's own, to measure on and to choose the tokens on
    compared: bool = False  # whether the file is compared with F16

    def measured(self, run: Run = QUIET) -> Recipe:
        """The recipe, with the importance measured and the tokens chosen."""
        recipe, base = self.recipe, self.recipe.open_base()
        if self.tokens is not None:
            recipe = replace(recipe, vocabulary=choose_vocabulary(base, self.tokens, self.texts, run))
        if self.thoroughness:
            texts = self.texts or CALIBRATION
            if recipe.importance:
                model = MergedModel(base, recipe.adapter)
                measure_importance(model, recipe.importance, texts, self.thoroughness, run)
            else:
                importance = cached_importance(base, recipe.adapter, texts, self.thoroughness, run)
                recipe = replace(recipe, importance=importance)
        return recipe


def write_model(request: "ConversionRequest", run: Run = QUIET) -> ConversionReport:
    """Convert what a person asks for, without a comparison."""
    return convert(request.resolve(run).measured(run), run)


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """Options of a conversion.

    Attributes:
        importance: importance file; measured and written if it is missing. By default it is measured once
            where it is needed, and cached.
        texts: texts to measure the importance on, and to choose tokens on besides the built-in ones.
        thoroughness: how much text the importance is measured on: quick, normal or thorough, which also
            searches the scales of blocks.
        target: processors to plan for, or a file of costs by `lab/type_costs.py`; by default this one.
    """

    base: str  # catalogue name, hub id, folder of safetensors, or GGUF
    output: Path | None = None  # the GGUF to write; None to plan one
    adapter: str | None = None  # PEFT folder, hub id, catalogue name, or short code
    prompt: Path | None = None  # adapter folder, or file, whose prompt is written into the chat template
    type: str | None = None  # ggml type, or `same` for those of the base; by default Q4_K
    size: str | None = None  # maximum file size instead of a type: 600MB, 572MiB or 3.9bpw
    vocabulary: int | None = None  # number of tokens to keep
    importance: Path | None = None
    texts: Path | None = None
    thoroughness: str | None = None
    target: str | None = None
    prefer: str | None = None  # `quality` or `speed`; by default between the two
    fidelity: bool | None = None  # whether to compare the file with F16; by default with an adapter only
    replace: bool = True  # whether the output may replace a file

    def check(self) -> None:
        """Raise ThirteenError if fields exclude each other, have no effect, or are malformed."""
        if self.type and self.size:
            raise OptionError("type", "cannot be given with {size}", self.type)
        if self.size is None:
            refuse_options(self, "requires {size}", "target", "prefer")
        if self.prefer not in PREFERENCES:
            raise OptionError("prefer", "must be quality or speed", self.prefer)
        if self.thoroughness not in (None, *CHUNKS):
            reason = f"must be one of {', '.join(CHUNKS)}"
            raise OptionError("thoroughness", reason, repr(self.thoroughness))
        useless = [] if self.vocabulary else ["texts"]
        if not self._rounded:
            refuse_options(self, "nothing is rounded in blocks", "thoroughness", "importance", *useless)
        if self._has_importance:
            useless += [] if self.thoroughness == THOROUGH else ["thoroughness"]
            refuse_options(self, "{importance} is given, so none is measured", *useless)
        if self.target is not None:
            find_costs(self.target)
        if self.texts and not self.texts.exists():
            raise RequestError(f"{self.texts}: no such file")

    @property
    def files(self) -> Iterator[Path]:
        """The files and folders that are read, as far as they are here."""
        names = (self.base, self.adapter)
        # Path.exists() raises for a code that is too long.
        yield from (Path(name) for name in names if name and os.path.exists(name))  # noqa: PTH110
        yield from filter(None, (self.texts, self.importance, self.prompt))

    def resolve(self, run: Run = QUIET) -> Conversion:
        """Check the fields, and find what they name: what follows knows files and choices, and no names."""
        self.check()
        if self.output:
            check_target(self.output, *self.files, replace=self.replace)
        if self.importance and not self._has_importance:
            check_target(self.importance, *(path for path in self.files if path != self.importance))
        base, adapter, ids = resolve_sources(self.base, self.adapter, run)
        checkpoint = open_checkpoint(base)
        if self.size and not self.vocabulary:
            specs = checkpoint.specs.values()
            parse_file_size(self.size).check_least(count_weights(s for s in specs if s.target != OUTPUT))
        recipe = Recipe(
            base,
            self.output,
            self._quantization(checkpoint),
            adapter=adapter,
            importance=self.importance,
            chat_template=_with_prompt(self.prompt, checkpoint) if self.prompt else None,
            search_scales=self.thoroughness == THOROUGH,
            ids=ids,
        )
        compared = adapter is not None if self.fidelity is None else self.fidelity
        needed = self.size or self.importance or self.thoroughness or self.texts
        measured = self._rounded and needed and not self._has_importance
        thoroughness = (self.thoroughness or NORMAL) if measured else None
        return Conversion(recipe, thoroughness, self.vocabulary, self.texts, compared)

    @property
    def _has_importance(self) -> bool:
        return self.importance is not None and self.importance.exists()

    @property
    def _rounded(self) -> bool:
        return self.type in (None, SAME_TYPES) or parse_type(self.type, SAME_TYPES) not in FLOATS

    def _quantization(self, base: Checkpoint) -> Quantization:
        if self.size is None:
            return Same() if self.type == SAME_TYPES else Uniform(self.type or DEFAULT_TYPE)
        tables = [find_costs(self.target)] if self.target else _host_costs(base)
        first, *others = map(ordinary_costs, tables)
        return FitSize(parse_file_size(self.size), self.prefer, first, tuple(others))


def _host_costs(base: Checkpoint) -> list[CostTable]:
    """The costs here of each library that may run the file, llama.cpp's first."""
    # By default the environment names one; without that, ik_llama.cpp may where it computes the base.
    # They load llama.cpp.
    from ..runtime.defaults import IK_ARCHITECTURES  # noqa: PLC0415
    from ..runtime.engine_options import EngineOptions  # noqa: PLC0415
    from ..runtime.llama.ik_llama_library import check_package, installed  # noqa: PLC0415

    in_ik = base.architecture.name in IK_ARCHITECTURES and not base.rope_tensors  # no factors of RoPE
    named = EngineOptions(library=None if in_ik else LLAMA).named_library
    if named == IK:
        check_package()
    names = [named] if named else [LLAMA, IK] if installed() else [LLAMA]
    tables = host_costs(*names)
    if named not in (None, tables[0].library):
        _log.warning("the costs of types in %s are not known for this processor: llama.cpp's are used", named)
    return tables


def _with_prompt(prompt: Path, base: Checkpoint) -> str:
    fields = base.tokenizer
    if CHAT_TEMPLATE not in fields:
        raise OptionError("prompt", f"{base.id} has no chat template", prompt)
    tokens = zip(
        fields["tokenizer.ggml.tokens"].value, fields["tokenizer.ggml.token_type"].value, strict=True
    )
    names = [name for name, kind in tokens if kind == TokenType.CONTROL]
    return QuestionPrompt.read(prompt).in_template(fields[CHAT_TEMPLATE].value, names)


def cached_importance(
    base: Checkpoint, adapter: Path | None, texts: Path, thoroughness: str, run: Run = QUIET
) -> Path:
    """The importance file of a base with an adapter; measured if the cache does not have it.

    Args:
        base: the base.
        adapter: a PEFT folder, merged into the base before the measurement.
        texts: the passages that it is measured on, as JSON lines.
        thoroughness: how many of them, a key of CHUNKS.
        run: how it runs.
    """
    read_passages(texts)  # reports an invalid file before the weights are hashed
    adapter_hash = adapter_sha256(adapter) if adapter else ""
    settings = sha256(repr((base.architecture, base.tokenizer)).encode()).hexdigest()
    key = cache_key(_METHOD, base.sha256(), settings, adapter_hash, file_sha256(texts), CHUNKS[thoroughness])

    def make(path: Path) -> None:
        measure_importance(MergedModel(base, adapter), path, texts, thoroughness, run)

    return cached(f"importance-{key}.gguf", make)


def measure_importance(
    model: MergedModel, output: Path, texts: Path, thoroughness: str = NORMAL, run: Run = QUIET
) -> None:
    """Measure the importance of a model as in cached_importance(), and write it."""
    chunks = _calibration_chunks(model.base, texts, CHUNKS[thoroughness])
    threads = default_threads() if run.threads is None else run.threads
    stats = collect_activation_stats(model, chunks, threads=threads, progress=run.stage("importance"))
    write_importance(output, stats, [texts.name])


def _calibration_chunks(base: Checkpoint, texts: Path, most: int) -> list[tuple[int, ...]]:
    """Chunks of a text by the tokenizer of a base, spread over the text."""
    passages = read_passages(texts)
    with temporary_folder("importance") as folder:
        write_tokenizer_file(base, folder / "tokenizer.gguf")
        header = read_header(folder / "tokenizer.gguf")
        with Model(header, vocabulary_only=True) as model:
            chunks = chunk_passages(model, passages, min(_CHUNK_SIZE, model.context_trained))
    count = min(most, len(chunks))
    return [chunks[index * len(chunks) // count] for index in range(count)]
