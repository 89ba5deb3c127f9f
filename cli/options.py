"""Options that several commands share, and the conversion of their values."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from ..errors import RequestError
from ..runtime.options import Effort
from .application import advanced_option, refuse_given
from .console import note, run_bars, wait_for

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ..models.resolve import ModelFiles
    from ..runtime.batch.ray_batch import FindFiles
    from ..runtime.engine.engine import Engine
    from ..runtime.engine_options import EngineOptions
    from ..runtime.options import Options

ADAPTER = "PEFT folder, hub id, catalogue name, or short code."
_RUNTIME_ADAPTER = f"GGUF LoRA, {ADAPTER}"
MODEL = "GGUF, folder of safetensors, catalogue name, hub id, or embedded."


def _layers(text: str) -> int | str:
    return text if text == "all" else int(text)


Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]
Threads = Annotated[
    int | None, advanced_option(min=1, max=512, help="CPU threads. Default: as fits this machine.")
]
GpuLayers = Annotated[
    Any,
    advanced_option(
        metavar="N|all", parser=_layers, help="Layers on a GPU, if llama-cpp-python is built for one."
    ),
]

# What goes in, and out.
BaseArgument = Annotated[str, Argument(metavar="BASE", help=MODEL)]
ModelArgument = Annotated[str, Argument(metavar="MODEL", help=MODEL)]
OR_ADAPTED = f"{MODEL} Default: the embedded model with its adapter merged."
ModelOrAdaptedArgument = Annotated[str | None, Argument(metavar="MODEL", help=OR_ADAPTED)]
AdapterArgument = Annotated[str, Argument(metavar="ADAPTER", help=ADAPTER)]
RuntimeAdapter = Annotated[
    str | None, Option(help=f"Adapter at run time, instead of the default model's: {_RUNTIME_ADAPTER}")
]
NamedAdapters = Annotated[
    list[str] | None,
    Option(
        "--adapter",
        metavar="[NAME=]ADAPTER",
        help=f"Adapter at run time, instead of the default model's; repeatable: {_RUNTIME_ADAPTER}",
    ),
]
Force = Annotated[bool, Option("--force", help="Overwrite the output if it exists.")]
AdapterOutput = Annotated[
    Path, Option("--output", "-o", help="Adapter folder to write; the same command resumes there.")
]

# Generation.
System = Annotated[str | None, Option(help="System prompt.")]
Context = Annotated[
    int | None, Option(min=1, help="Maximum tokens of prompt and answer. Default: 4096, if they fit.")
]
MaxTokens = Annotated[int, Option(min=1, help="Maximum tokens of an answer.")]
MaxTokensOrDefault = Annotated[
    int | None, Option(min=1, help="Maximum tokens of an answer. Default: 512; 2048 with thoughts.")
]
Think = Annotated[
    bool | None,
    Option("--think/--no-think", help="Think before answering, or not. Default: as the chat template does."),
]
Temperature = Annotated[float, Option(help="Sampling temperature; 0 is greedy, or 0.7 for votes.")]
Seed = Annotated[int, advanced_option(help="Random seed. Each further answer adds 1.")]
AnswerEffort = Annotated[Effort, Option(help="low: one answer; medium, high: the majority of up to 8 or 10.")]
Schema = Annotated[Path | None, advanced_option(help="JSON schema that an answer must match.")]
Calculator = Annotated[bool, advanced_option(help="Complete equations with their exact results.")]
Ray = Annotated[
    str | None,
    Option(metavar="ADDRESS", help="Ray cluster: HOST:PORT of its head, auto, or local to start one."),
]
Workers = Annotated[int | None, advanced_option(min=1, help="With --ray: workers. Default: as many as fit.")]


def matching_options(ctx: typer.Context, settings: "type[DataclassInstance]") -> dict[str, Any]:
    """The values of the options by name, for `settings(**values)`; unset ones are left to its defaults.

    The parameters of the command match the fields of the dataclass by name: renaming either breaks the match.
    """
    names = {field.name for field in fields(settings)}
    return {name: value for name, value in ctx.params.items() if name in names and value is not None}


def request_options(ctx: typer.Context, schema: Path | None = None) -> "Options":
    """What a command's options ask for; its --adapter and --prompt name files, which are no part of it."""
    from ..runtime.options import Options

    values = matching_options(ctx, Options)
    if schema:
        from ..files.json_file import decode_utf8, read_bounded
        from ..runtime.grammar import SCHEMA_MAX, from_schema

        values["grammar"] = from_schema(decode_utf8(read_bounded(schema, SCHEMA_MAX), str(schema)))
    return Options(**{name: value for name, value in values.items() if name not in ("adapter", "prompt")})


def engine_options(ctx: typer.Context, **others: Any) -> "EngineOptions":
    """Options of an engine without files; checked before anything is loaded."""
    from ..runtime.engine_options import EngineOptions

    return EngineOptions(**matching_options(ctx, EngineOptions) | {"adapter": None} | others)


def resolve_model(
    model: str | Path | None, adapter: str | Mapping[str, str] | None = None, *, threads: int | None = None
) -> "ModelFiles":
    """Find MODEL, by default the embedded one, and a run-time adapter, or several by name.

    A base that is no GGUF is converted on first use, with so many threads.
    """
    from ..models.resolve import resolve

    adapters = {"adapter": adapter} if isinstance(adapter, str) else adapter
    with run_bars(threads) as run:
        return resolve(model, adapters, run, note)


def open_engine(files: "ModelFiles", options: "EngineOptions") -> "Engine":
    """Load a model and its adapters, and say what its user should know."""
    from ..runtime.engine.engine import Engine
    from ..runtime.plan import EnginePlan

    wait_for(f"loading {files.model.name}…")
    engine = Engine(EnginePlan.make(files.model, options))
    if engine.notice:
        note(engine.notice)
    return engine


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


def batch_executor(ctx: typer.Context, find: "FindFiles | None" = None) -> Any:
    """The `BatchExecutor` of --ray and --workers: this machine, or a cluster's workers."""
    from ..runtime.batch.ray_batch import RayWorkers
    from ..runtime.batch.reproducible_batches import BatchJob

    ray, workers = ctx.params["ray"], ctx.params["workers"]
    if ray is None:
        refuse_given(ctx, ("workers",), "requires --ray")
        return BatchJob.run
    return RayWorkers(ray, workers, find).run
