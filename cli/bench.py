"""The commands `thirteen bench …`: each measures, and prints what can be read or, with --json, parsed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RequestError
from .console import err, facts_table, printable, progress_bar, score_bar, show_file, show_result, stage_bars
from .options import (
    AdapterOption,
    BaseArgument,
    CalculatorOption,
    CalibrationOption,
    CostsOption,
    ImportanceOption,
    Json,
    LengthsOption,
    MaxTokensOption,
    Output,
    PreferOption,
    RayOption,
    Revision,
    RoundsOption,
    SeedOption,
    ShapeOption,
    TargetOption,
    TemperatureOption,
    Threads,
    TogetherOption,
    TypesOption,
    VotesOption,
    WorkersOption,
    answer_with,
    memory_size,
    shown_name,
    size_target,
)

bench_app = typer.Typer(
    help="Measure an adapted model beside its base.",
    epilog="Example: thirteen bench latency base.gguf adapted.gguf",
    no_args_is_help=True,
)


@bench_app.command("latency", epilog="Example: thirteen bench latency base.gguf adapted.gguf --json")
def bench_latency(
    base: Annotated[Path | None, typer.Argument(help="The unadapted GGUF.")] = None,
    adapted: Annotated[
        Path | None, typer.Argument(help="The adapted GGUF, or the base again with --adapter.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for the adapted side.")] = None,
    shape: ShapeOption = None,
    types: TypesOption = "Q4_K",
    base_types: Annotated[str, typer.Option(help="Likewise, of the base beside it.")] = "Q4_K_M",
    rounds: RoundsOption = 20,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt.")] = 128,
    decode_tokens: Annotated[int, typer.Option(min=2, help="Tokens decoded after it.")] = 64,
    lengths: LengthsOption = "",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare latency, load time, memory and size, base and adapted in turns."""
    from ..bench.speed.latency import latency_table, run_latency

    with (
        _models(
            "latency", ("BASE", base), ("ADAPTED", adapted), shape=shape, types=(base_types, types)
        ) as files,
        progress_bar("latency") as progress,
    ):
        report = run_latency(
            *files,
            adapter=adapter,
            threads=threads,
            prompt_tokens=prompt_tokens,
            decode_tokens=decode_tokens,
            rounds=rounds,
            lengths=_numbers("--lengths", lengths),
            progress=progress,
        )
    show_result(as_json, asdict(report), lambda: latency_table(report))


@contextmanager
def _models(
    command: str, *given: tuple[str, Path | None], shape: str | None, types: Sequence[str]
) -> Iterator[tuple[Path, ...]]:
    """The files that were given, or for a while those of a shape, of so many types.

    Raises:
        RequestError: not all files are given, or both they and a shape.
        ThirteenError: what write_shape() raises.
    """
    from ..bench.synthetic.shapes import temporary_shape_models

    paths = [path for _, path in given if path]
    if len(paths) != (0 if shape else len(given)):
        names = " and ".join(name for name, _ in given)
        raise RequestError(f"bench {command}: give either {names} or --shape")
    with temporary_shape_models(shape, types) if shape else nullcontext(tuple(paths)) as files:
        yield files


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except ValueError:
        raise RequestError(f"{option} {text!r}: write it like 128,512,1024") from None


@bench_app.command(
    "shape", epilog="Example: thirteen bench shape llama-3.2-1b --types Q4_K/Q6_K --output 1b.gguf"
)
def bench_shape(
    name: Annotated[str, typer.Argument(help="A base's catalogue name.")],
    output: Output,
    types: TypesOption = "Q4_K",
    as_json: Json = False,
) -> None:
    """Write a model of a base's exact shapes with random weights, to measure before any download."""
    from ..bench.synthetic.shapes import write_shape

    show_file(output, write_shape(name, types, output), as_json)


@bench_app.command("size", epilog="Example: thirteen bench size my-model.gguf")
def bench_size(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    as_json: Json = False,
) -> None:
    """Account for a file's bytes by tensor and type, beside llama.cpp's own files and the size asked for."""
    from ..bench.size.size import run_size, size_table

    report = run_size(model)
    show_result(as_json, asdict(report), lambda: size_table(report))


@bench_app.command("memory", epilog="Example: thirteen bench memory my-model.gguf --cap 1GB")
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
    from ..runtime.threads import physical_cores

    threads = physical_cores() if threads is None else threads
    with _models("memory", ("MODEL", model), shape=shape, types=(types,)) as (file,):
        if cap is not None:
            _bench_cap(file, cap, profile, context, threads, as_json)
            return
        from ..bench.harness.workload import Workload
        from ..bench.memory.memory import measure_memory, memory_table

        memory = measure_memory(file, adapter, Workload(prompt_tokens, decode_tokens, threads))
        show_result(as_json, asdict(memory), lambda: memory_table(memory, file))


def _bench_cap(model: Path, cap: str, profile: str, context: int, threads: int, as_json: bool) -> None:
    from ..bench.memory.memory_limit import memory_limit_table, run_memory_limit
    from ..bench.memory.memory_limit_worker import LimitSettings

    trial = LimitSettings(profile, context, threads)
    with progress_bar("memory") as progress:
        report = run_memory_limit(model, memory_size("--cap", cap), trial, progress)
    show_result(as_json, asdict(report), lambda: memory_limit_table(report, model))


@bench_app.command("fidelity", epilog="Example: thirteen bench fidelity reference-F16.gguf my-model.gguf")
def bench_fidelity(
    reference: Annotated[Path, typer.Argument(help="The adapted model in high precision: --type F16.")],
    shipped: Annotated[Path, typer.Argument(help="The same, quantized.")],
    base: Annotated[Path | None, typer.Option(help="The unadapted model in high precision.")] = None,
    shipped_base: Annotated[Path | None, typer.Option(help="The unadapted model, quantized alike.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="The adapter as a GGUF LoRA, to compare.")] = None,
    data: Annotated[Path | None, typer.Option(help="Texts as JSON lines, instead of those built in.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most positions compared.")] = 4096,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare a quantized file with full precision, and tell how much of the adapter's effect survives."""
    from ..bench.fidelity.fidelity import fidelity_table, run_fidelity

    with progress_bar("fidelity") as progress:
        report = run_fidelity(
            reference,
            shipped,
            base=base,
            shipped_base=shipped_base,
            adapter=adapter,
            data=data,
            tokens=tokens,
            threads=threads,
            progress=progress,
        )
    show_result(as_json, asdict(report), lambda: fidelity_table(report))


@bench_app.command(
    "accuracy", epilog="Example: thirteen bench accuracy adapted.gguf --base base.gguf --data gsm8k"
)
def bench_accuracy(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    data: Annotated[
        str,
        typer.Option(
            help="gsm8k, svamp, asdiv, gsm-symbolic, or a file of JSON lines with question and answer."
        ),
    ],
    base: Annotated[
        Path | None, typer.Option(help="The unadapted GGUF, which is asked the same; with --adapter, MODEL.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for MODEL: a GGUF LoRA.")] = None,
    prompt: Annotated[str, typer.Option(help="zero-shot, refined or 8-shot.")] = "zero-shot",
    votes: VotesOption = 1,
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    calculator: CalculatorOption = True,
    max_tokens: MaxTokensOption = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The most questions, spread evenly over the set.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="The folder of each question's records; by default in the cache.")
    ] = None,
    ray: RayOption = None,
    workers: WorkersOption = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Count right answers, of a model and its base; a run that was interrupted goes on where it was."""
    from ..bench.accuracy.accuracy import accuracy_table, run_accuracy
    from ..bench.accuracy.prompt_settings import PromptSettings
    from ..runtime.request import Sampling
    from ..runtime.threads import default_threads

    terms = PromptSettings(
        threads=default_threads().decode if threads is None else threads,
        prompt=prompt,
        votes=votes,
        sampling=Sampling(temperature, seed=seed),
        calculator=calculator,
        max_tokens=max_tokens,
    )
    with score_bar() as progress:
        report = run_accuracy(
            model,
            data,
            terms,
            base=base,
            adapter=adapter,
            limit=limit,
            folder=records,
            answer=answer_with(ray, workers),
            progress=progress,
        )
    show_result(as_json, asdict(report), lambda: accuracy_table(report))


@bench_app.command("report", epilog="Example: thirteen bench report base.gguf adapted.gguf --out report")
def bench_report(
    base: Annotated[Path | None, typer.Argument(help="The unadapted GGUF.")] = None,
    adapted: Annotated[Path | None, typer.Argument(help="The adapted GGUF.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("report"),
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for the adapted side.")] = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of measuring.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size of the adapted file.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    peers: Annotated[Path | None, typer.Option(help="JSON of bench peers.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Also ask both models: gsm8k, svamp, asdiv, gsm-symbolic, or a file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most questions of --data.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer to them.")] = 512,
    reference: Annotated[
        Path | None, typer.Option(help="Also measure fidelity: the adapted model in high precision.")
    ] = None,
    base_reference: Annotated[
        Path | None, typer.Option(help="With it, the unadapted one: for the adapter's effect.")
    ] = None,
    with_peers: Annotated[
        bool, typer.Option("--with-peers", help="Also run the file through other programs.")
    ] = False,
    llama_bench: Annotated[str | None, typer.Option(help="One of these; else the one on the path.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Another: the folder that the file was made of, for transformers.")
    ] = None,
    rounds: RoundsOption = 20,
    lengths: LengthsOption = "32,128,512,1024",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write one page of it all: speed, accuracy, size, memory, and what was published beside it.

    Without models and without JSON, the embedded default is measured, with its adapter and without.
    """
    from ..bench.accuracy.prompt_settings import PromptSettings
    from ..bench.peers.peers import PeerPrograms
    from ..bench.report.collect import ReportInputs, ReportRequest, collect
    from ..bench.report.report import check_report_folder, write_report
    from ..runtime.threads import default_threads

    files = ReportInputs(latency, size, accuracy, fidelity, peers)
    if base_reference and not reference:
        raise RequestError("bench report: --base-reference goes with --reference")
    if (llama_bench or checkpoint) and not with_peers:
        raise RequestError("bench report: --llama-bench and --checkpoint go with --with-peers")
    if (base is None) != (adapted is None):
        raise RequestError("bench report: give both models, base and adapted, or none")
    check_report_folder(out_dir)
    models = (base, adapted) if base and adapted else None
    if models is None and files == ReportInputs():
        models = _default_models()
    wanted = ReportRequest(
        data=data,
        terms=PromptSettings(threads=threads or default_threads().decode, max_tokens=max_tokens)
        if data is not None
        else None,
        limit=limit,
        reference=reference,
        base_reference=base_reference,
        programs=PeerPrograms(llama_bench, checkpoint=checkpoint) if with_peers else None,
    )
    with stage_bars() as stage:
        measured = collect(
            files,
            models,
            adapter=adapter,
            wanted=wanted,
            rounds=rounds,
            lengths=_numbers("--lengths", lengths),
            threads=threads,
            stage=stage,
        )
    path = write_report(measured, out_dir)
    show_result(as_json, {"report": str(path)}, lambda: facts_table({"report": str(path)}))


def _default_base() -> Path:
    from ..workflows.default_model import default_model

    with progress_bar("preparing the default model") as progress:
        return default_model(adapted=False, progress=progress)


def _default_models() -> tuple[Path, Path]:
    from ..workflows.default_model import default_model

    with progress_bar("preparing the default models") as progress:
        return default_model(adapted=False, progress=progress), default_model(progress=progress)


@bench_app.command("peers", epilog="Example: thirteen bench peers model.gguf --llama-bench ./llama-bench")
def bench_peers(
    model: Annotated[Path | None, typer.Argument(help="A GGUF file.")] = None,
    shape: ShapeOption = None,
    types: TypesOption = "Q4_K",
    rounds: Annotated[int, typer.Option(min=1, help="In each, everyone does the work once.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prefill.")] = 512,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a decode.")] = 64,
    sequences: Annotated[int, typer.Option(min=1, max=64, help="How many at once.")] = 8,
    llama_bench: Annotated[str | None, typer.Option(help="The program; else the one on the path.")] = None,
    llama_batched_bench: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The folder that the file was made of, for transformers.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure the same file and threads through whatever else is installed, in turns with this engine."""
    from ..bench.peers.peer import PeerWorkload
    from ..bench.peers.peers import PeerPrograms, peers_table, run_peers
    from ..runtime.threads import physical_cores

    work = PeerWorkload(
        physical_cores() if threads is None else threads,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        sequences=sequences,
    )
    programs = PeerPrograms(llama_bench, llama_batched_bench, checkpoint)
    with (
        _models("peers", ("MODEL", model), shape=shape, types=(types,)) as (file,),
        progress_bar("peers") as progress,
    ):
        report = run_peers(file, work=work, rounds=rounds, programs=programs, progress=progress)
    show_result(as_json, asdict(report), lambda: peers_table(report))


@bench_app.command("trust", epilog="Example: thirteen bench trust my-model.gguf")
def bench_trust(
    model: Annotated[
        Path | None, typer.Argument(help="A GGUF file; by default the embedded default.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Each makes both comparisons.")] = 100,
    slowdown: Annotated[
        float, typer.Option(help="How many times as long each batch of the slowed side takes.")
    ] = 1.05,
    rounds: Annotated[
        int, typer.Option(min=8, help="Of a comparison: four turns each, two of either side.")
    ] = 24,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of prompt.")] = 16,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after it.")] = 8,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Tell whether this benchmark can be trusted here: a base beside itself, plain and slowed on purpose."""
    from ..bench.speed.aa_test import aa_test_table, run_aa_test

    model = model or _default_base()
    with progress_bar("trust") as progress:
        report = run_aa_test(
            model,
            runs=runs,
            slowdown=slowdown,
            rounds=rounds,
            prompt_tokens=prompt_tokens,
            decode_tokens=decode_tokens,
            threads=threads,
            progress=progress,
        )
    show_result(as_json, asdict(report), lambda: aa_test_table(report))


@bench_app.command(
    "clients", epilog="Example: thirteen bench clients http://127.0.0.1:8080 http://127.0.0.1:8081"
)
def bench_clients(
    urls: Annotated[list[str], typer.Argument(help="Servers that are running; the first is compared.")],
    clients: Annotated[int, typer.Option(min=1, max=256, help="At once.")] = 8,
    questions: Annotated[int, typer.Option(min=1, help="Of each client in a round.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="In each, every server has a turn.")] = 8,
    as_json: Json = False,
) -> None:
    """Compare servers of OpenAI's chat completions under several clients, in turns."""
    from ..bench.speed.load_test import ClientLoad, load_test_table, run_load_test

    with progress_bar("clients") as progress:
        report = run_load_test(
            urls, load=ClientLoad(clients, questions, max_tokens), rounds=rounds, progress=progress
        )
    show_result(as_json, asdict(report), lambda: load_test_table(report))


@bench_app.command("cluster", epilog="Example: thirteen bench cluster model.gguf --workers 1,2 --threads 1")
def bench_cluster(
    model: Annotated[
        Path | None, typer.Argument(help="A GGUF file; by default the embedded default.")
    ] = None,
    ray: RayOption = "local",
    workers: Annotated[str, typer.Option(help="How many; several numbers are compared.")] = "1,2",
    questions: Annotated[int, typer.Option(min=1, help="Of each round.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="Of each engine.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="In each, every way has a turn.")] = 3,
    as_json: Json = False,
) -> None:
    """Compare a batch by one engine here with one by the workers of a Ray cluster."""
    from ..bench.speed.ray_scaling import ray_scaling_table, run_ray_scaling

    model = model or _default_base()
    with progress_bar("cluster") as progress:
        report = run_ray_scaling(
            model,
            ray or "local",
            _numbers("--workers", workers),
            questions=questions,
            max_tokens=max_tokens,
            threads=threads,
            rounds=rounds,
            progress=progress,
        )
    show_result(as_json, asdict(report), lambda: ray_scaling_table(report))


@bench_app.command("tune-threads", epilog="Example: thirteen bench tune-threads model.gguf")
def bench_tune_threads(
    model: Annotated[Path, typer.Argument(help="A GGUF file of the size that will be used.")],
    rounds: Annotated[int, typer.Option(min=1, help="In each, every number has a turn.")] = 8,
    keep: Annotated[bool, typer.Option(help="Have engines use what is best here from now on.")] = True,
    as_json: Json = False,
) -> None:
    """Find how many threads are quickest on this machine, and use so many from now on."""
    from ..bench.speed.thread_sweep import run_thread_sweep, thread_sweep_table
    from ..runtime.threads import save_threads

    with progress_bar("threads") as progress:
        report = run_thread_sweep(model, rounds=rounds, progress=progress)
    if keep:
        err.print(f"kept in {save_threads(report.best)}", markup=False)
    show_result(as_json, asdict(report), lambda: thread_sweep_table(report))


@bench_app.command("types", epilog="Example: thirteen bench types --output costs.json")
def bench_types(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the costs, for plan and convert --costs."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what a weight of each type costs on this machine; three to six minutes."""
    from ..bench.speed.type_costs import run_type_costs, type_costs_table, write_costs
    from ..files.output import check_target

    if output:
        check_target(output)
    with progress_bar("types") as progress:
        report = run_type_costs(threads=threads, progress=progress)
    if output:
        write_costs(report, output)
    show_result(as_json, asdict(report), lambda: type_costs_table(report))


@bench_app.command("curve", epilog="Example: thirteen bench curve embedded --sizes 4.3bpw,4.5bpw,5bpw")
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
    from ..bench.size.kl_curve import curve_table
    from ..models.fetch import fetch
    from ..workflows.adapter_resolver import resolve_adapter_folder
    from ..workflows.size_sweep import check_results, run_size_sweep, write_results

    check_results(output_dir)
    wishes = [size_target(size, target, prefer, costs, together=together) for size in sizes.split(",")]
    base_path = fetch(base, revision=revision, what="base")
    adapter_path = resolve_adapter_folder(adapter, base) if adapter else None
    with stage_bars() as stage:
        report = run_size_sweep(
            base_path,
            wishes,
            adapter=adapter_path,
            importance=importance,
            calibration=calibration,
            base_id=shown_name(str(base_path) if base == "embedded" else base),
            adapter_id=shown_name(adapter or ""),
            data=data,
            tokens=tokens,
            threads=threads,
            keep=keep,
            stage=stage,
        )
    for warning in report.warnings:
        err.print(f"warning: {printable(warning)}", markup=False)
    for path in write_results(report, output_dir):
        err.print(f"written: {path}", markup=False, soft_wrap=True)
    show_result(as_json, asdict(report), lambda: curve_table(report.curve))
