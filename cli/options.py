"""Options that several commands share, and the conversion of their values."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import RequestError
from .console import note, run_bars
from .help_sections import advanced_option, flag

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..cluster.ray_batch import FindFiles
    from ..runtime.grammar.grammar import Grammar
    from ..runtime.native.settings import GpuLayers as RuntimeGpuLayers
    from ..runtime.plan.options import EngineOptions
    from ..workflows.model_files import ModelFiles

ADAPTER = "PEFT folder, hub id, catalogue name, or short code."
_RUNTIME_ADAPTER = f"GGUF LoRA, {ADAPTER}"
_MODEL = "GGUF, folder of safetensors, catalogue name, hub id, or embedded."

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[
    int | None, advanced_option(min=1, max=512, help="CPU threads. Default: chosen for this machine.")
]
GpuLayers = Annotated[
    str,
    advanced_option(
        metavar="N|all", help="Layers that a GPU computes, if llama-cpp-python is built for it. Default: 0."
    ),
]
Library = Annotated[
    str | None,
    advanced_option(help="Library that computes: llama.cpp, ik or auto. Default: THIRTEEN_LIBRARY, or auto."),
]
Kv = Annotated[
    str | None, advanced_option(help="Type of the KV cache: f16, bf16 or q8_0. Default: chosen for the file.")
]

# What goes in, and out.
BaseArgument = Annotated[str, typer.Argument(metavar="BASE", help=_MODEL)]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)]
OR_ADAPTED = f"{_MODEL} Default: the embedded model with its adapter merged."
ModelOrAdaptedArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help=OR_ADAPTED)]
AdapterArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help=ADAPTER)]
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
        metavar="[NAME=]ADAPTER",
        help=f"Adapter to offer at run time; repeatable. {_RUNTIME_ADAPTER} With the default model, adapters "
        "replace the merged one.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the output if it exists.")]
AdapterOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Adapter folder to write. An interrupted run resumes there.")
]

# Generation.
System = Annotated[str | None, typer.Option(help="System prompt.")]
Context = Annotated[
    int | None,
    typer.Option(
        min=1, help="Maximum tokens of prompt and answer. Default: 4096, or what model and memory allow."
    ),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer.")]
MaxTokensOrDefault = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum tokens of an answer. Default: 512; with thoughts, 2048 for both."),
]
Think = Annotated[
    bool | None,
    typer.Option(
        "--think/--no-think",
        help="Whether a model that can think does so before it answers. Default: as its template has it.",
    ),
]
ThinkBudget = Annotated[
    int | None,
    advanced_option(
        min=0, help="Tokens after which a thought is ended. At most, and by default, 3/4 of --max-tokens."
    ),
]
Temperature = Annotated[
    float, typer.Option(help="Sampling temperature. 0 is greedy, or 0.7 where answers vote.")
]
Seed = Annotated[int, advanced_option(help="Random seed. Each further answer adds 1.")]
EffortName = Literal["low", "medium", "high"]
LOW: EffortName = "low"
AnswerEffort = Annotated[
    EffortName,
    typer.Option(
        help="low: one answer. medium and high: up to 8 or 10 answers to a question with a number, until "
        "their majority is certain."
    ),
]
MinConfidence = Annotated[
    float,
    advanced_option(
        help='Answer "not sure" below this probability of being right, and where it is not known: single '
        "answers of most models."
    ),
]
Schema = Annotated[Path | None, advanced_option(help="JSON schema that an answer must match.")]
Calculator = Annotated[bool, typer.Option(help="Complete equations with their exact results.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Run on a Ray cluster: HOST:PORT of its head, auto, or local to start one here.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="With --ray: number of workers. Default: as many as fit.")
]

# Measurements.
Rounds = Annotated[int, typer.Option(min=8, help="Rounds of four runs, two of each model.")]
Texts = Annotated[Path | None, typer.Option(help="Texts as JSON lines. Default: the built-in ones.")]
Positions = Annotated[int, typer.Option(min=1, help="Maximum positions to compare.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum questions, spread evenly over the set.")]
Timed = Annotated[
    int,
    advanced_option(min=0, help="Questions to ask one at a time, for the time to a right answer; 0: none."),
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
            raise typer.BadParameter(f"{flag(ctx.command, name)}: {reason}")


def resolve_model(
    model: str | Path | None, adapter: str | Mapping[str, str] | None = None, *, threads: int | None = None
) -> "ModelFiles":
    """Find MODEL, by default the embedded one, and a run-time adapter, or several by name.

    A base that is no GGUF is converted on first use, with so many threads.
    """
    from ..workflows.model_files import resolve

    adapters = {"adapter": adapter} if isinstance(adapter, str) else adapter
    with run_bars(threads) as run:
        return resolve(model, adapters, run, note)


def named_adapters(words: Iterable[str]) -> dict[str, str]:
    """Parse [NAME=]ADAPTER; the default name is that of the file."""
    named: dict[str, str] = {}
    for word in words:
        # Path.exists() raises for a code, which is longer than a name may be.
        is_named = "=" in word and not os.path.exists(word)  # noqa: PTH110
        name, source = word.split("=", 1) if is_named else (Path(word).name.replace("=", "-"), word)
        if not (name and source) or name in named:
            raise RequestError(f"adapter {word!r}: must be [NAME=]ADAPTER, with distinct names")
        named[name] = source
    return named


def probed_model(
    model: str | Path, adapter: str | None = None, *, threads: int | None = None
) -> "ModelFiles":
    """Find MODEL and a run-time adapter, and first load what is not trusted in another process."""
    from ..runtime.trial import try_files

    files = resolve_model(model, adapter, threads=threads)
    try_files(files.model, files.adapters.values())
    return files


def batch_executor(ray: str | None, workers: int | None, find: "FindFiles | None" = None) -> Any:
    """The `BatchExecutor` of --ray and --workers: this machine, or a cluster's workers."""
    from ..cluster.ray_batch import RayWorkers
    from ..runtime.batch.reproducible_batches import BatchJob

    if ray is None and workers is not None:
        raise typer.BadParameter("--workers requires --ray")
    return BatchJob.run if ray is None else RayWorkers(ray, workers, find).run


def engine_options(
    gpu_layers: str, ray: str | None = None, base: "EngineOptions | None" = None, **others: Any
) -> "EngineOptions":
    """Engine options without files, some instead of those of `base`; checked before anything is loaded."""
    from ..runtime.plan.options import EngineOptions

    if not re.fullmatch("[0-9]{1,9}|all", gpu_layers):
        raise typer.BadParameter(f"--gpu-layers {gpu_layers!r}: must be an integer from 0, or all")
    layers: RuntimeGpuLayers = "all" if gpu_layers == "all" else int(gpu_layers)
    if layers and ray is not None:
        raise typer.BadParameter("--gpu-layers and --ray exclude each other")
    return replace(base or EngineOptions(), gpu_layers=layers, **others)


def answer_grammar(schema: Path | None) -> "Grammar | None":
    """The grammar of --schema; None without it."""
    if schema is None:
        return None
    from ..files.json_file import decode_utf8, read_bounded
    from ..runtime.grammar.grammar import SCHEMA_MAX, from_schema

    text = decode_utf8(read_bounded(schema, SCHEMA_MAX), str(schema))
    try:
        return from_schema(text)
    except RequestError as error:
        raise RequestError(f"{schema}: {error}") from None
