"""Commands `thirteen bench …` on file size and memory: shape, size, memory, curve."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import note, progress_bar, show_file, show_report, show_result, stage_bars, warn
from .inputs import curve_questions, shape_or_files, workload

app = typer.Typer()


@app.command("shape", epilog=options.example("bench shape llama-3.2-1b --types Q4_K/Q6_K --output 1b.gguf"))
def bench_shape(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Catalogue name of a base.")],
    output: options.Output,
    types: options.Types = "Q4_K",
    as_json: options.Json = False,
) -> None:
    """Write a GGUF with random weights in the shapes of a base.

    It serves to measure speed and memory without a download.
    """
    from ...bench.synthetic.shapes import write_shape_model

    show_file(output, write_shape_model(name, types, output), as_json)


@app.command("size", epilog=options.example("bench size my-model.gguf"))
def bench_size(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Break down the size of a file by tensor and type.

    It is compared with llama.cpp's own types and mixes, and with its planned size.
    """
    from ...bench.size.size import run_size, size_table

    show_report(as_json, run_size(model), size_table)


@app.command("memory", epilog=options.example("bench memory my-model.gguf --cap 1GB"))
def bench_memory(
    ctx: typer.Context,
    model: options.ModelOrShapeArgument = None,
    shape: options.Shape = None,
    types: options.Types = "Q4_K",
    cap: Annotated[
        str | None, typer.Option(help="Run under this memory limit, such as 1GB, and find the smallest one.")
    ] = None,
    profile: Annotated[str, typer.Option(help="With --cap: laptop, server or phone.")] = "phone",
    context: Annotated[int, typer.Option(min=1, help="With --cap: context length in tokens.")] = 2048,
    adapter: Annotated[Path | None, typer.Option(help="GGUF LoRA to apply at run time.")] = None,
    prompt_tokens: options.PromptTokens = 128,
    decode_tokens: options.DecodeTokens = 64,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Measure memory by purpose, start times and energy per token.

    Starts are measured cold and warm.
    """
    if cap is None:
        options.refuse_given(ctx, ("profile", "context"), "requires --cap")
    else:
        options.refuse_given(ctx, ("adapter", "prompt_tokens", "decode_tokens"), "it is not for --cap")
    load = workload(prompt_tokens, decode_tokens, threads)
    with shape_or_files(ctx, "memory", ("MODEL", model), shape=shape, types=(types,)) as (file,):
        options.probe_files(file, adapter, untrusted=untrusted)
        if cap is not None:
            _measure_limit(file, options.memory_size("--cap", cap), profile, context, load.threads, as_json)
            return
        from ...bench.memory.memory import measure_memory, memory_table

        memory = measure_memory(file, adapter, load)
        show_report(as_json, memory, lambda memory: memory_table(memory, file))


def _measure_limit(
    model: Path, cap_bytes: int, profile: str, context: int, threads: int, as_json: bool
) -> None:
    from ...bench.memory.memory_limit import memory_limit_table, run_memory_limit
    from ...bench.memory.memory_limit_worker import LimitSettings

    with progress_bar("memory") as progress:
        report = run_memory_limit(model, cap_bytes, LimitSettings(profile, context, threads), progress)
    show_report(as_json, report, lambda report: memory_limit_table(report, model))


@app.command(
    "curve",
    epilog=options.example(
        "bench curve embedded --sizes 72MB,76MB,84MB --vocabulary 24576",
        "bench curve embedded --sizes 92MB --with imatrix,autoround --accuracy svamp",
    ),
)
def bench_curve(
    ctx: typer.Context,
    base: options.BaseArgument,
    sizes: Annotated[
        str, typer.Option(help="Sizes of the planned files, as in convert --size, separated by commas.")
    ] = "4.5bpw,5bpw,5.5bpw",
    rivals: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAMES",
            help="Quantizers to compare with: imatrix (llama.cpp's), autoround, autoround-light, "
            "autoround-200, gptq-gguf; a file made elsewhere as NAME=FILE.gguf; or none.",
        ),
    ] = "imatrix",
    all_types: Annotated[
        bool,
        typer.Option("--all-types", help="Make all of llama.cpp's files, not only those of similar size."),
    ] = False,
    timeout: Annotated[
        int, typer.Option(min=1, help="Minutes that another quantizer may take for a file.")
    ] = 180,
    accuracy: Annotated[
        str | None, typer.Option(help="Also ask these questions, as bench accuracy --data does.")
    ] = None,
    questions: Annotated[
        int, typer.Option(min=1, help="With --accuracy: maximum questions, spread evenly over the set.")
    ] = 200,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="With --accuracy: maximum tokens of an answer.")
    ] = 300,
    adapter: options.Adapter = None,
    importance: options.Importance = None,
    calibration: options.CalibrationAndTuning = None,
    target: options.Target = None,
    prefer: options.Prefer = "quality",
    costs: options.Costs = None,
    together: options.Together = False,
    workload: options.AnswerWorkload = None,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="N|FILE",
            help="Also make a file of each size with only so many tokens, chosen and cached, or those of a "
            "list; see `thirteen vocabulary`.",
        ),
    ] = None,
    vocabulary_texts: options.VocabularyTexts = None,
    search_scales: options.SearchScales = False,
    refine: options.Refine = None,
    data: options.Texts = None,
    tokens: options.Positions = 4096,
    output_dir: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("bench/results"),
    keep: Annotated[Path | None, typer.Option(help="Keep the files in this folder. Default: delete.")] = None,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Plot KL divergence against file size.

    The files are planned ones, and those of llama.cpp's types and mixes around them. --search-scales,
    --refine and --vocabulary each add a planned file of each size: with searched scales, with tuned scales,
    with fewer tokens. A quantizer that is missing or fails is a row that says so, and each of its files has a
    planned one of equal size.
    """
    from ...bench.size.kl_curve import curve_table
    from ...bench.size.quantizers import parse_quantizers
    from ...convert.provenance import SourceIds
    from ...workflows.size_sweep import ALL_STOCK, check_results, run_size_sweep, write_results
    from ...workflows.sweep_files import SweepInputs, SweepRivals

    check_results(output_dir)
    llama_cpp, quantizers = parse_quantizers("--with", rivals)
    if accuracy is None:
        options.refuse_given(ctx, ("questions", "max_tokens"), "requires --accuracy")
    if not llama_cpp:
        options.refuse_given(ctx, ("all_types",), "requires imatrix in --with")
    makes_files = any(quantizer.makes_files for quantizer in quantizers)
    if not makes_files:
        options.refuse_given(ctx, ("timeout",), "requires AutoRound in --with")
    if importance and refine is None and not makes_files:
        options.refuse_given(ctx, ("calibration",), "--importance is given, so none is measured")
    stock = () if not llama_cpp else ALL_STOCK if all_types else None
    asked = None if accuracy is None else curve_questions(accuracy, questions, max_tokens, threads)
    targets = [
        options.size_target(size, target, prefer, costs, together=together, workload=workload)
        for size in sizes.split(",")
    ]
    base_path, adapter_path = options.fetch_base_and_adapter(base, adapter, revision)
    base_id = options.provenance_name(str(base_path) if base == "embedded" else base)
    ids = SourceIds(base_id, options.provenance_name(adapter or ""))
    kept = options.resolve_vocabulary(vocabulary, base_path, vocabulary_texts, threads)
    inputs = SweepInputs(
        base_path,
        adapter_path,
        importance,
        calibration,
        ids,
        threads,
        kept,
        search_scales=search_scales,
        refine=refine,
    )
    with stage_bars() as stage:
        report = run_size_sweep(
            inputs,
            targets,
            SweepRivals(stock, quantizers, 60 * timeout),
            data=data,
            tokens=tokens,
            questions=asked,
            keep=keep,
            stage=stage,
        )
    warn(report.warnings)
    for path in write_results(report, output_dir):
        note(f"written: {path}")
    show_result(as_json, asdict(report), lambda: curve_table(report.curve))
