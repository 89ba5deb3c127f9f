"""Commands `thirteen bench …` on speed: latency, peers, trust, clients, cluster, tune-threads, types."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import err, progress_bar, show_report
from ..options import (
    Json,
    LengthsOption,
    RayOption,
    RoundsOption,
    ShapeOption,
    Threads,
    TypesOption,
)
from .options import default_base, parse_numbers, shape_or_files

app = typer.Typer()


@app.command("latency", epilog="Example: thirteen bench latency base.gguf adapted.gguf --json")
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
    from ...bench.harness.workload import Workload
    from ...bench.speed.latency import latency_table, run_latency
    from ...runtime.threads import physical_cores

    threads = physical_cores() if threads is None else threads
    with (
        shape_or_files(
            "latency", ("BASE", base), ("ADAPTED", adapted), shape=shape, types=(base_types, types)
        ) as files,
        progress_bar("latency") as progress,
    ):
        report = run_latency(
            *files,
            workload=Workload(prompt_tokens, decode_tokens, threads),
            adapter=adapter,
            rounds=rounds,
            lengths=parse_numbers("--lengths", lengths),
            progress=progress,
        )
    show_report(as_json, report, latency_table)


@app.command("peers", epilog="Example: thirteen bench peers model.gguf --llama-bench ./llama-bench")
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
    from ...bench.peers.peer import PeerWorkload
    from ...bench.peers.peers import PeerPrograms, peers_table, run_peers
    from ...runtime.threads import physical_cores

    work = PeerWorkload(
        physical_cores() if threads is None else threads,
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        sequences=sequences,
    )
    programs = PeerPrograms(llama_bench, llama_batched_bench, checkpoint)
    with (
        shape_or_files("peers", ("MODEL", model), shape=shape, types=(types,)) as (file,),
        progress_bar("peers") as progress,
    ):
        report = run_peers(file, workload=work, rounds=rounds, programs=programs, progress=progress)
    show_report(as_json, report, peers_table)


@app.command("trust", epilog="Example: thirteen bench trust my-model.gguf")
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
    from ...bench.harness.workload import Workload
    from ...bench.speed.aa_test import aa_test_table, run_aa_test
    from ...runtime.threads import physical_cores

    threads = physical_cores() if threads is None else threads
    model = model or default_base()
    with progress_bar("trust") as progress:
        report = run_aa_test(
            model,
            workload=Workload(prompt_tokens, decode_tokens, threads),
            runs=runs,
            slowdown=slowdown,
            rounds=rounds,
            progress=progress,
        )
    show_report(as_json, report, aa_test_table)


@app.command("clients", epilog="Example: thirteen bench clients http://127.0.0.1:8080 http://127.0.0.1:8081")
def bench_clients(
    urls: Annotated[list[str], typer.Argument(help="Servers that are running; the first is compared.")],
    clients: Annotated[int, typer.Option(min=1, max=256, help="At once.")] = 8,
    questions: Annotated[int, typer.Option(min=1, help="Of each client in a round.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="In each, every server has a turn.")] = 8,
    as_json: Json = False,
) -> None:
    """Compare servers of OpenAI's chat completions under several clients, in turns."""
    from ...bench.speed.load_test import ClientLoad, load_test_table, run_load_test

    with progress_bar("clients") as progress:
        report = run_load_test(
            urls, load=ClientLoad(clients, questions, max_tokens), rounds=rounds, progress=progress
        )
    show_report(as_json, report, load_test_table)


@app.command("cluster", epilog="Example: thirteen bench cluster model.gguf --workers 1,2 --threads 1")
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
    from ...bench.speed.ray_scaling import ray_scaling_table, run_ray_scaling

    model = model or default_base()
    with progress_bar("cluster") as progress:
        report = run_ray_scaling(
            model,
            ray or "local",
            parse_numbers("--workers", workers),
            questions=questions,
            max_tokens=max_tokens,
            threads=threads,
            rounds=rounds,
            progress=progress,
        )
    show_report(as_json, report, ray_scaling_table)


@app.command("tune-threads", epilog="Example: thirteen bench tune-threads model.gguf")
def bench_tune_threads(
    model: Annotated[Path, typer.Argument(help="A GGUF file of the size that will be used.")],
    rounds: Annotated[int, typer.Option(min=1, help="In each, every number has a turn.")] = 8,
    keep: Annotated[bool, typer.Option(help="Have engines use what is best here from now on.")] = True,
    as_json: Json = False,
) -> None:
    """Find how many threads are quickest on this machine, and use so many from now on."""
    from ...bench.speed.thread_sweep import run_thread_sweep, thread_sweep_table
    from ...runtime.threads import save_threads

    with progress_bar("threads") as progress:
        report = run_thread_sweep(model, rounds=rounds, progress=progress)
    if keep:
        err.print(f"kept in {save_threads(report.best)}", markup=False)
    show_report(as_json, report, thread_sweep_table)


@app.command("types", epilog="Example: thirteen bench types --output costs.json")
def bench_types(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the costs, for plan and convert --costs."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what a weight of each type costs on this machine; three to six minutes."""
    from ...bench.speed.type_costs import run_type_costs, type_costs_table, write_costs
    from ...files.output import check_target

    if output:
        check_target(output)
    with progress_bar("types") as progress:
        report = run_type_costs(threads=threads, progress=progress)
    if output:
        write_costs(report, output)
    show_report(as_json, report, type_costs_table)
