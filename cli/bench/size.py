"""Commands `thirteen bench …` on file size and memory: size, curve, shape, memory."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..console import err, printable, progress_bar, show_file, show_report, show_result, stage_bars
from ..options import (
    AdapterOption,
    BaseArgument,
    CalibrationOption,
    CostsOption,
    ImportanceOption,
    Json,
    Output,
    PreferOption,
    Revision,
    ShapeOption,
    TargetOption,
    Threads,
    TogetherOption,
    TypesOption,
    memory_size,
    shown_name,
    size_target,
)
from .options import shape_or_files

app = typer.Typer()


@app.command("shape", epilog="Example: thirteen bench shape llama-3.2-1b --types Q4_K/Q6_K --output 1b.gguf")
def bench_shape(
    name: Annotated[str, typer.Argument(help="A base's catalogue name.")],
    output: Output,
    types: TypesOption = "Q4_K",
    as_json: Json = False,
) -> None:
    """Write a model of a base's exact shapes with random weights, to measure before any download."""
    from ...bench.synthetic.shapes import write_shape_model

    show_file(output, write_shape_model(name, types, output), as_json)


@app.command("size", epilog="Example: thirteen bench size my-model.gguf")
def bench_size(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    as_json: Json = False,
) -> None:
    """Account for a file's bytes by tensor and type, beside llama.cpp's own files and the size asked for."""
    from ...bench.size.size import run_size, size_table

    report = run_size(model)
    show_report(as_json, report, size_table)


@app.command("memory", epilog="Example: thirteen bench memory my-model.gguf --cap 1GB")
def bench_memory(
    model: Annotated[Path | None, typer.Argument(help="A GGUF file.")] = None,
    shape: ShapeOption = None,
    types: TypesOption = "Q4_K",
    cap: Annotated[
        str | None, typer.Option(help="Answer within this limit, as 1GB; also finds the smallest that works.")
    ] = None,
    profile: Annotated[str, typer.Option(help="With --cap: laptop, server or phone.")] = "phone",
    context: Annotated[
        int, typer.Option(min=1, help="With --cap: the most tokens of prompt and answer.")
    ] = 2048,
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter, as a GGUF LoRA.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt.")] = 128,
    decode_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded after it.")] = 64,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what a model takes: memory by what it is for, cold and warm starts, energy for a token."""
    from ...runtime.threads import physical_cores

    threads = physical_cores() if threads is None else threads
    with shape_or_files("memory", ("MODEL", model), shape=shape, types=(types,)) as (file,):
        if cap is not None:
            _bench_cap(file, cap, profile, context, threads, as_json)
            return
        from ...bench.harness.workload import Workload
        from ...bench.memory.memory import measure_memory, memory_table

        memory = measure_memory(file, adapter, Workload(prompt_tokens, decode_tokens, threads))
        show_result(as_json, asdict(memory), lambda: memory_table(memory, file))


def _bench_cap(model: Path, cap: str, profile: str, context: int, threads: int, as_json: bool) -> None:
    from ...bench.memory.memory_limit import memory_limit_table, run_memory_limit
    from ...bench.memory.memory_limit_worker import LimitSettings

    trial = LimitSettings(profile, context, threads)
    with progress_bar("memory") as progress:
        report = run_memory_limit(model, memory_size("--cap", cap), trial, progress)
    show_result(as_json, asdict(report), lambda: memory_limit_table(report, model))


@app.command("curve", epilog="Example: thirteen bench curve embedded --sizes 4.3bpw,4.5bpw,5bpw")
def bench_curve(
    base: BaseArgument,
    sizes: Annotated[
        str, typer.Option(help="The planned files' sizes, each as convert's --size, with commas.")
    ] = "4.3bpw,4.5bpw,4.75bpw,5bpw,5.25bpw,5.5bpw,6bpw",
    adapter: AdapterOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "quality",
    costs: CostsOption = None,
    together: TogetherOption = False,
    data: Annotated[Path | None, typer.Option(help="Texts as JSON lines, instead of those built in.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most positions compared.")] = 4096,
    output_dir: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("bench/results"),
    keep: Annotated[
        Path | None, typer.Option(help="A folder where the files stay; else each is deleted once measured.")
    ] = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Plot KL divergence against size: planned files beside llama.cpp's own types and mixes."""
    from ...bench.size.kl_curve import curve_table
    from ...convert.merged_view import SourceIds
    from ...models.fetch import fetch
    from ...workflows.adapter_resolver import resolve_adapter_folder
    from ...workflows.size_sweep import SweepInputs, check_results, run_size_sweep, write_results

    check_results(output_dir)
    targets = [size_target(size, target, prefer, costs, together=together) for size in sizes.split(",")]
    base_path = fetch(base, revision=revision, kind="base")
    adapter_path = resolve_adapter_folder(adapter, base) if adapter else None
    base_id = shown_name(str(base_path) if base == "embedded" else base)
    ids = SourceIds(base_id, shown_name(adapter or ""))
    inputs = SweepInputs(base_path, adapter_path, importance, calibration, ids, threads)
    with stage_bars() as stage:
        report = run_size_sweep(inputs, targets, data=data, tokens=tokens, keep=keep, stage=stage)
    for warning in report.warnings:
        err.print(f"warning: {printable(warning)}", markup=False)
    for path in write_results(report, output_dir):
        err.print(f"written: {path}", markup=False, soft_wrap=True)
    show_result(as_json, asdict(report), lambda: curve_table(report.curve))
