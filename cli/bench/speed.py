"""Commands `thirteen bench …` on speed, memory and size: of models, programs and types."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import progress_bar, show_report

app = typer.Typer()


@app.command("latency", epilog=options.example("bench latency base.gguf adapted.gguf --json"))
def bench_latency(
    ctx: typer.Context,
    base: Annotated[str, typer.Argument(metavar="BASE", help="Unadapted model, as in ask.")],
    adapted: Annotated[
        str, typer.Argument(metavar="ADAPTED", help="Adapted model, or the unadapted one with --adapter.")
    ],
    adapter: options.Lora = None,
    rounds: options.Rounds = 8,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Ask one question only, of so many tokens.")
    ] = None,
    decode_tokens: Annotated[
        int, typer.Option(min=1, help="With --prompt-tokens: tokens of the answer after the first.")
    ] = 64,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Compare the latency of an adapted model and its base.

    Both write answers of 64 and 256 tokens to questions of 60, 200 and 800. On two cores this takes about 6
    minutes for a model of 135M parameters, and half an hour for one of 1B. Load time, memory, size and the
    fraction of the memory bandwidth are compared as well.
    """
    from ...bench.speed.latency import LatencyRequest, latency_table, run_latency
    from ...bench.speed.questions import QUESTIONS, QuestionShape

    if prompt_tokens is None:
        options.refuse_given(ctx, ("decode_tokens",), "requires --prompt-tokens")
    questions = (QuestionShape(prompt_tokens, 1 + decode_tokens),) if prompt_tokens else QUESTIONS
    base_path = options.probed_model(base, threads=threads).model
    files = options.probed_model(adapted, adapter, threads=threads)
    given = options.matching_options(ctx, LatencyRequest)
    given |= {"base": base_path, "adapted": files.model, "adapter": files.adapter, "questions": questions}
    with progress_bar("latency") as progress:
        report = run_latency(LatencyRequest(**given), progress)
    show_report(as_json, report, latency_table)


@app.command("peers", epilog=options.example("bench peers model.gguf --with llama-bench,llama-server"))
def bench_peers(
    ctx: typer.Context,
    model: options.ModelArgument,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each runs every program once.")] = 8,
    prompt_tokens: options.PromptTokens = 200,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode after the prompt.")] = 64,
    sequences: Annotated[int, typer.Option(min=1, max=64, help="Concurrent sequences.")] = 8,
    names: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAMES",
            help="Programs to compare with: llama-cpp-python, and on PATH llama-bench, llama-server. "
            "Default: those that are installed.",
        ),
    ] = "",
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Compare speed with other inference programs.

    All run the same file with the same number of threads, each in a process of its own.
    """
    from ...bench.peers.peer import PeerWorkload
    from ...bench.peers.peers import PeersRequest, peers_table, run_peers

    work = PeerWorkload(**options.matching_options(ctx, PeerWorkload))
    path = options.probed_model(model, threads=threads).model
    request = PeersRequest(model=path, work=work, rounds=rounds, names=names.split(",") if names else ())
    with progress_bar("peers") as progress:
        report = run_peers(request, progress)
    show_report(as_json, report, peers_table)


@app.command("memory", epilog=options.example("bench memory my-model.gguf"))
def bench_memory(
    ctx: typer.Context,
    model: options.ModelArgument,
    adapter: options.ModelAdapter = None,
    prompt_tokens: options.PromptTokens = 128,
    decode_tokens: Annotated[int, typer.Option(min=2, help="Tokens to decode.")] = 64,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure memory by purpose, and cold and warm starts."""
    from ...bench.memory.memory import measure_memory, memory_table
    from ...quality.workload import Workload

    files = options.probed_model(model, adapter, threads=threads)
    work = Workload(**options.matching_options(ctx, Workload))
    memory = measure_memory(files.model, files.adapter, work)
    show_report(as_json, memory, lambda memory: memory_table(memory, files.model))


@app.command("types", epilog=options.example("bench types -o costs.json"))
def bench_types(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the costs, for plan and convert --costs."),
    ] = None,
    replace: options.Force = False,
    rounds: Annotated[int, typer.Option(min=8, help="Rounds; each measures every type once.")] = 30,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the cost of a weight of each type.

    It takes three to six minutes and 4.3 GB in the cache, which are freed at the end.
    """
    from ...bench.quality_tables import type_costs_table
    from ...files.output import check_target
    from ...quality.costs.type_costs import run_type_costs, write_costs
    from ...runtime.plan.options import EngineOptions

    if output:
        check_target(output, replace=replace)
    with progress_bar("types") as progress:
        report = run_type_costs(rounds=rounds, engine=EngineOptions(threads=threads), progress=progress)
    if output:
        write_costs(report, output)
    show_report(as_json, report, type_costs_table)


@app.command("size", epilog=options.example("bench size my-model.gguf"))
def bench_size(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Break down the size of a file, and compare it with its plan."""
    from ...bench.memory.size import run_size, size_table

    show_report(as_json, run_size(options.resolve_model(model).model), size_table)
