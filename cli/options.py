"""Options that several commands share, and the conversion of their values."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import note, progress_bar, stage_bars

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..convert.provenance import SourceIds
    from ..convert.vocabulary.vocabulary_list import VocabularyList
    from ..runtime.grammar.grammar import Grammar
    from ..runtime.profile import GpuLayers as RuntimeGpuLayers

_ADAPTER = "PEFT folder, hub id, catalogue name, or short code."
_RUNTIME_ADAPTER = "GGUF LoRA, PEFT folder, hub id, catalogue name, or short code."

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[
    int | None, typer.Option(min=1, max=512, help="CPU threads. Default: chosen for this machine.")
]
GpuLayers = Annotated[
    str,
    typer.Option(
        metavar="N|all", help="Layers that a GPU computes, if llama-cpp-python is built for it. Default: 0."
    ),
]
Untrusted = Annotated[
    bool,
    typer.Option(
        "--untrusted",
        help="First load the files in another process, with limits. By default only those not made here.",
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the base on the hub.")]

# What goes in, and out.
BaseArgument = Annotated[
    str, typer.Argument(metavar="BASE", help="Catalogue name, hub id, folder of safetensors, or GGUF.")
]
AdapterArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help=_ADAPTER)]
Adapter = Annotated[str | None, typer.Option(help=_ADAPTER)]
RuntimeAdapter = Annotated[
    str | None,
    typer.Option(
        help=f"Adapter to apply at run time: {_RUNTIME_ADAPTER} With the default model, it replaces the "
        "merged one."
    ),
]
ModelAdapter = Annotated[
    str | None, typer.Option(help=f"Adapter to apply to MODEL at run time: {_RUNTIME_ADAPTER}")
]
NamedAdapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        metavar="NAME=ADAPTER",
        help="Offer an adapter (GGUF LoRA, PEFT folder, hub id, catalogue name, or short code) as NAME; "
        "repeatable. With the default model, adapters replace the merged one.",
    ),
]
Lora = Annotated[Path | None, typer.Option(help="GGUF LoRA to apply to the adapted model at run time.")]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="GGUF file.")]
ModelOrShapeArgument = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help="GGUF file, unless --shape is given.")
]
ModelOrAdaptedArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        help="GGUF file, catalogue name or hub id. Default: the embedded model with its adapter merged.",
    ),
]
AnsweringModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="GGUF that answers, catalogue name or hub id. Default: the embedded model without an adapter.",
    ),
]
ModelOrBaseArgument = Annotated[
    Path | None,
    typer.Argument(metavar="MODEL", help="GGUF file. Default: the embedded model without an adapter."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="GGUF to write.")]
AdapterOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Adapter folder to write. An interrupted run resumes there.")
]
Basis = Annotated[
    Path | None,
    typer.Option(help="Frozen part of a TinyLoRA (see adapter basis). Default: that of the base."),
]

# A file of a given size.
Size = Annotated[
    str | None,
    typer.Option(help="Maximum file size: 600MB, 572MiB or 3.9bpw. Plans the type of each tensor."),
]
Importance = Annotated[
    Path | None, typer.Option(help="Importance file. Default: measured once, then cached.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Texts to measure importance on: JSON lines with text, or question and answer."),
]
CalibrationAndTuning = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Texts to measure importance on, and with --refine to tune on: JSON lines with text, or "
        "question and answer.",
    ),
]
Effort = Annotated[
    str,
    typer.Option(
        help="Calibration text that the importance is measured on: quick (3,072 tokens), normal (6,144) or "
        "thorough (18,432)."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="Processors to plan for: x86, x86-avx512, arm, any (of these) or wasm (a browser). Default: "
        "this one, whose costs are measured on first use, in one to two minutes."
    ),
]
Prefer = Annotated[str, typer.Option(help="Preference: quality, balanced or speed.")]
Costs = Annotated[Path | None, typer.Option(help="Costs of types, measured by bench types.")]
Together = Annotated[
    bool, typer.Option("--together", help="Plan for decoding 8 sequences at once, as a server does.")
]
AnswerWorkload = Annotated[
    str | None,
    typer.Option(
        "--workload",
        help="Plan for answers after prompts. Default: prompt=200,answer=100, if costs know prefill.",
    ),
]

Vocabulary = Annotated[
    str | None,
    typer.Option(
        metavar="N|FILE|auto",
        help="Keep only so many tokens, chosen and cached, or those of a list; see `thirteen vocabulary`. "
        "auto: as many as lose the least at --size.",
    ),
]
FixedVocabulary = Annotated[
    str | None,
    typer.Option(
        "--vocabulary",
        metavar="N|FILE",
        help="Keep only so many tokens, chosen and cached, or those of a list; see `thirteen vocabulary`.",
    ),
]
VocabularyTexts = Annotated[
    Path | None,
    typer.Option(help="Texts of your own to choose the tokens on, besides the built-in ones: JSON lines."),
]
SearchScales = Annotated[
    bool,
    typer.Option(
        "--search-scales",
        help="Search the scales of all blocks by the error after feedback: better files, slower.",
    ),
]
Refine = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        min=0.01,
        max=10_000,
        help="Also tune block scales and norms for so long, by distillation from the base.",
    ),
]

# Generation.
System = Annotated[str | None, typer.Option(help="System prompt.")]
Context = Annotated[int, typer.Option(min=1, help="Maximum tokens of prompt and answer.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")]
Temperature = Annotated[
    float, typer.Option(help="Sampling temperature. 0 is greedy, or 0.7 with several votes.")
]
Seed = Annotated[int, typer.Option(help="Random seed. Each further vote adds 1.")]
Votes = Annotated[int, typer.Option(min=1, max=64, help="Answers per question, for a majority vote.")]
Calculator = Annotated[bool, typer.Option(help="Complete equations with their exact results.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Run on a Ray cluster: HOST:PORT of its head, or auto. Without ADDRESS, start one here.",
    ),
]
RayInsecure = Annotated[
    bool, typer.Option("--ray-insecure", help="Allow a Ray cluster without token authentication.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="With --ray: number of workers. Default: as many as fit.")
]

# Measurements.
Shape = Annotated[
    str | None, typer.Option("--shape", help="Use random weights with the shapes of this catalogue base.")
]
Types = Annotated[
    str,
    typer.Option(
        "--types",
        help="Types of the random weights: a type, LAYERS/EMBEDDING, a llama.cpp mix such as Q4_K_M, a plan "
        "(thirteen plan --json), or a GGUF of that shape.",
    ),
]
Rounds = Annotated[
    int | None, typer.Option(min=8, help="Rounds of four runs, two of each model. Default: 8.")
]
Lengths = Annotated[str, typer.Option(help="Also measure at these prompt lengths: 128,512,1024.")]
PromptTokens = Annotated[int, typer.Option(min=1, help="Tokens to prefill.")]
DecodeTokens = Annotated[int, typer.Option(min=2, help="Tokens to decode.")]
Texts = Annotated[Path | None, typer.Option(help="Texts as JSON lines. Default: the built-in ones.")]
Positions = Annotated[int, typer.Option(min=1, help="Maximum positions to compare.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum questions, spread evenly over the set.")]
Timed = Annotated[
    int, typer.Option(min=0, help="Questions to ask one at a time, for the time to a right answer; 0: none.")
]


def example(*commands: str) -> str:
    """The epilog of a command; the backspace keeps click from wrapping the lines."""
    return "\b\nExample: " + "\n         ".join(f"thirteen {command}" for command in commands)


def matching_options(ctx: typer.Context, settings: "type[DataclassInstance]") -> dict[str, Any]:
    """The values of the options by name, for `settings(**values)`; unset ones are left to its defaults.

    The parameters of the command match the fields of the dataclass by name: renaming either breaks the match.
    """
    names = {field.name for field in fields(settings)}
    return {name: value for name, value in ctx.params.items() if name in names and value is not None}


def refuse_given(ctx: typer.Context, names: Iterable[str], reason: str) -> None:
    """Refuse the options that the user has given although they would have no effect.

    Args:
        ctx: of the command.
        names: names of its parameters.
        reason: follows the option in the error, such as `requires --size`.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            option = next(one for one in ctx.command.params if one.name == name).opts[0]
            raise typer.BadParameter(f"{option}: {reason}")


def resolve_adapter(adapter: str, base: str | None = None) -> Path:
    """Resolve ADAPTER to its PEFT folder; see resolve_adapter_folder()."""
    from ..workflows.adapter_resolver import resolve_adapter_folder

    with progress_bar("basis") as progress:
        return resolve_adapter_folder(adapter, base, progress=progress)


def fetch_base_and_adapter(base: str, adapter: str | None, revision: str | None) -> tuple[Path, Path | None]:
    """Resolve BASE, --revision and --adapter to the base and the adapter's PEFT folder."""
    from ..models.fetch import fetch

    path = fetch(base, revision=revision, kind="base")
    return path, resolve_adapter(adapter, base) if adapter else None


def _converted_base(name: str, threads: int | None) -> Path | None:
    """The GGUF of a base that is given by its catalogue name or hub id, converted on first use; or None."""
    if name.endswith(".gguf"):
        return None
    from ..workflows.model_cache import is_model_name, named_model

    if not is_model_name(name):
        return None
    with stage_bars() as stage:
        return named_model(name, threads=threads, announce=note, stage=stage)


def resolve_model(
    model: Path | None, adapters: Mapping[str, str], *, untrusted: bool = False, threads: int | None = None
) -> tuple[Path, dict[str, Path]]:
    """Resolve MODEL, by default the embedded one, and its run-time adapters by name.

    A base that is given by its name is converted on first use, with so many threads. The embedded model has
    its own adapter merged, unless other adapters are given. With --untrusted, they are loaded in another
    process; without it, Engine() does that where it is needed.
    """
    from ..workflows.adapter_resolver import resolve_runtime_lora
    from ..workflows.default_model import default_model

    model = model and (_converted_base(str(model), threads) or model)
    with progress_bar("preparing") as progress:
        path = model or default_model(adapted=not adapters, progress=progress)
        loras = {
            name: resolve_runtime_lora(source, path, progress=progress) for name, source in adapters.items()
        }
    if untrusted:
        probe_files(path, *loras.values(), untrusted=True)
    return path, loras


def answering_model(model: str | None, threads: int | None) -> Path:
    """Resolve MODEL, by default the embedded one without an adapter, as resolve_model() does."""
    from ..models.fetch import fetch

    if model is None:
        return default_base()
    return _converted_base(model, threads) or fetch(model, kind="base")


def named_adapters(words: Iterable[str]) -> dict[str, str]:
    """Parse the values of --adapter, NAME=ADAPTER."""
    named: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not (name and equals and source) or name in named:
            raise typer.BadParameter(f"--adapter {word}: must be NAME=ADAPTER, with distinct names")
        named[name] = source
    return named


def probe_files(model: Path, *adapters: Path | None, untrusted: bool) -> None:
    """Load a model and its adapters in another process: what is not trusted, with --untrusted everything."""
    from ..runtime.load_probe import probe_model_files

    probe_model_files(model, filter(None, adapters), untrusted=untrusted or None)


def resolve_vocabulary(
    vocabulary: str | None, base: Path, texts: Path | None, threads: int | None
) -> "VocabularyList | None":
    """Resolve --vocabulary and --vocabulary-texts to the tokens of a base that stay; None for all."""
    from ..workflows.vocabulary_choice import resolve_vocabulary

    if vocabulary is None:
        if texts:
            raise typer.BadParameter("--vocabulary-texts requires --vocabulary with a number of tokens")
        return None
    if vocabulary == "auto":
        raise typer.BadParameter("--vocabulary auto: it is for convert --size and plan")
    with stage_bars() as stage:
        return resolve_vocabulary(vocabulary, base, texts=texts, threads=threads, stage=stage)


def default_base() -> Path:
    """The embedded model without an adapter; it is converted on first use."""
    from ..workflows.default_model import default_model

    with progress_bar("preparing") as progress:
        return default_model(adapted=False, progress=progress)


def size_target(
    size: str,
    target: str | None,
    prefer: str,
    costs: Path | None,
    *,
    together: bool,
    workload: str | None,
) -> Any:
    """The `SizeTarget` of --size, --target, --prefer, --costs, and --together or --workload."""
    from ..convert.quantize.costs import costs_for, ordinary_costs, parse_workload, read_costs
    from ..convert.quantize.file_size import parse_file_size
    from ..convert.quantize.size_planner import PREFERENCES, SizeTarget
    from ..workflows.machine_costs import machine_costs

    if prefer not in PREFERENCES:
        raise typer.BadParameter(f"--prefer {prefer!r}: must be one of {', '.join(PREFERENCES)}")
    if costs and target:
        raise typer.BadParameter(f"--costs {costs} and --target {target} exclude each other")
    if together and workload:
        raise typer.BadParameter(f"--together and --workload {workload} exclude each other")
    file_size = parse_file_size(size)
    if costs:
        table = read_costs(costs)
    elif target:
        table = costs_for(target)
    else:
        with progress_bar("types") as progress:
            table = machine_costs(progress)
    if together:
        table = table.together()
    elif workload:
        table = table.for_answers(parse_workload(workload))
    else:
        table = ordinary_costs(table)
    return SizeTarget(file_size, prefer, table)


def default_ray_address(words: Sequence[str]) -> list[str]:
    """Give a --ray without an address its default; the parser has no options with an optional value."""
    return [
        "--ray=local" if word == "--ray" and following.startswith("-") else word
        for word, following in zip(words, [*words[1:], "-"], strict=False)
    ]


def batch_executor(ray: str | None, workers: int | None, *, insecure: bool) -> Any:
    """The `BatchExecutor` of --ray, --workers and --ray-insecure: this machine, or a cluster's workers."""
    from ..runtime.batch.reproducible_batches import BatchJob
    from ..runtime.cluster.ray_batch import RayWorkers

    if ray is None and (workers is not None or insecure):
        raise typer.BadParameter("--workers and --ray-insecure require --ray")
    return BatchJob.run if ray is None else RayWorkers(ray, workers, insecure).run


def gpu_layers(text: str, ray: str | None = None) -> "RuntimeGpuLayers":
    """Parse --gpu-layers, and check that there is a GPU before anything is converted or loaded."""
    from ..runtime.llama.gpu import check_gpu_layers

    if not re.fullmatch("[0-9]{1,9}|all", text):
        raise typer.BadParameter(f"--gpu-layers {text!r}: must be an integer from 0, or all")
    layers: RuntimeGpuLayers = "all" if text == "all" else int(text)
    if layers and ray is not None:
        raise typer.BadParameter("--gpu-layers and --ray exclude each other")
    check_gpu_layers(layers)
    return layers


def provenance_name(source: str) -> str:
    """The name of a base or an adapter in the provenance: as given, or the last part of a path."""
    # Path.exists() raises for a code that is too long for the file system.
    return Path(source).resolve().name if source and os.path.exists(source) else source  # noqa: PTH110


def source_ids(base: str, adapter: str | None) -> "SourceIds":
    """The names of a base and an adapter in the provenance."""
    from ..convert.provenance import SourceIds

    return SourceIds(provenance_name(base), provenance_name(adapter or ""))


def answer_grammar(
    schema: Path | None, grammar: Path | None = None, regex: str | None = None
) -> "Grammar | None":
    """The grammar of --schema, --grammar or --regex; None without any of them."""
    from ..files.json_file import decode_utf8, read_bounded
    from ..runtime.grammar.grammar import SCHEMA_MAX, from_gbnf, from_lark, from_regex, from_schema

    if sum(one is not None for one in (schema, grammar, regex)) > 1:
        raise typer.BadParameter("--schema, --grammar and --regex exclude each other")
    if regex is not None:
        return from_regex(regex)
    path = schema or grammar
    if path is None:
        return None
    text = decode_utf8(read_bounded(path, SCHEMA_MAX), str(path))
    if schema:
        return from_schema(text)
    return from_lark(text) if path.suffix == ".lark" else from_gbnf(text)


def memory_size(option: str, text: str) -> int:
    """Parse a size in bytes, such as 1GB or 900MiB."""
    from ..convert.quantize.file_size import parse_file_size
    from ..errors import OutputError

    try:
        size = parse_file_size(text)
    except OutputError:
        size = None
    if size is None or size.unit is None:
        raise typer.BadParameter(f"{option} {text!r}: must be a size such as 1GB, 600MB or 572MiB")
    return size.file_bytes(0)
