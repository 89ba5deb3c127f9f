"""Commands `thirteen bench …` on speed: of models, programs, servers, clusters, attention and types."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import RequestError
from .. import options
from ..console import note, progress_bar, show_report
from .inputs import parse_numbers, shape_or_files, workload

app = typer.Typer()

Keep = Annotated[bool, typer.Option(help="Save the result as the default of all engines.")]


@app.command("latency", epilog=options.example("bench latency base.gguf adapted.gguf --json"))
def bench_latency(
    ctx: typer.Context,
    base: Annotated[Path | None, typer.Argument(metavar="BASE", help="Unadapted GGUF.")] = None,
    adapted: Annotated[
        Path | None,
        typer.Argument(metavar="ADAPTED", help="Adapted GGUF, or the unadapted one with --adapter."),
    ] = None,
    adapter: options.Lora = None,
    shape: options.Shape = None,
    types: options.Types = "Q4_K",
    base_types: Annotated[str, typer.Option(help="With --shape: types of the base.")] = "Q4_K_M",
    rounds: Annotated[
        int | None,
        typer.Option(
            min=8, help="Rounds of four runs, two of each model. Default: 8, or 20 with --synthetic."
        ),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Run a random prompt instead of questions with answers.")
    ] = False,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --synthetic: tokens to prefill. Default: 128.")
    ] = None,
    decode_tokens: Annotated[
        int | None, typer.Option(min=2, help="With --synthetic: tokens to decode. Default: 64.")
    ] = None,
    lengths: options.Lengths = "",
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Compare the latency of an adapted model and its base.

    Both write answers of 64 and 256 tokens to questions of 60, 200 and 800. On two cores this takes about 6
    minutes for a model of 135M parameters, and half an hour for one of 1B. Load time, memory, size and the
    fraction of the memory bandwidth are compared as well.
    """
    from ...bench.speed.latency import latency_table, run_latency
    from ...bench.speed.length_sweep import QUESTIONS

    if not synthetic and (prompt_tokens or decode_tokens):
        raise RequestError("bench latency: --prompt-tokens and --decode-tokens require --synthetic")
    files = (("BASE", base), ("ADAPTED", adapted))
    with (
        shape_or_files(ctx, "latency", *files, shape=shape, types=(base_types, types)) as models,
        progress_bar("latency") as progress,
    ):
        options.probe_files(models[0], untrusted=untrusted)
        options.probe_files(models[1], adapter, untrusted=untrusted)
        report = run_latency(
            *models,
            workload=workload(prompt_tokens or 128, decode_tokens or 64, threads),
            adapter=adapter,
            rounds=rounds,
            lengths=parse_numbers("--lengths", lengths),
            questions=() if synthetic else QUESTIONS,
            progress=progress,
        )
    show_report(as_json, report, latency_table)


@app.command("peers", epilog=options.example("bench peers model.gguf --llama-bench ./llama-bench"))
def bench_peers(
    ctx: typer.Context,
    model: options.ModelOrShapeArgument = None,
    shape: options.Shape = None,
    types: options.Types = "Q4_K",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each runs every program once.")] = 8,
    prompt_tokens: options.PromptTokens = 200,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode after the prompt.")] = 64,
    sequences: Annotated[int, typer.Option(min=1, max=64, help="Concurrent sequences.")] = 8,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Decode from an empty context, as llama-bench does.")
    ] = False,
    packages: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="NAMES",
            help="Peers to compare with: llama-cpp-python, openvino, xllamacpp, mistralrs, node-llama-cpp, "
            "llama-server, ik. Default: those that are installed.",
        ),
    ] = "",
    llama_bench: Annotated[str | None, typer.Option(help="Path of llama-bench. Default: on PATH.")] = None,
    llama_batched_bench: Annotated[
        str | None, typer.Option(help="Path of llama-batched-bench. Default: on PATH.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder that MODEL was made from, for transformers.")
    ] = None,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Compare speed with other inference programs.

    All run the same file with the same number of threads, each in a process of its own. Besides the peers of
    --with, this engine always takes part, llama-bench and llama-batched-bench where they are found, and
    transformers with --checkpoint.
    """
    from ...bench.peers.peer import PeerWorkload
    from ...bench.peers.peer_process import PACKAGES
    from ...bench.peers.peers import PeerPrograms, peers_table, run_peers
    from ...runtime.threads import physical_cores

    load = PeerWorkload(
        threads or physical_cores(),
        prompt_tokens=prompt_tokens,
        decode_tokens=decode_tokens,
        depth=1 if synthetic else prompt_tokens,
        sequences=sequences,
    )
    names = tuple(packages.split(",")) if packages else PACKAGES
    programs = PeerPrograms(llama_bench, llama_batched_bench, checkpoint, names)
    with (
        shape_or_files(ctx, "peers", ("MODEL", model), shape=shape, types=(types,)) as (file,),
        progress_bar("peers") as progress,
    ):
        options.probe_files(file, untrusted=untrusted)
        report = run_peers(file, workload=load, rounds=rounds, programs=programs, progress=progress)
    show_report(as_json, report, peers_table)


@app.command("trust", epilog=options.example("bench trust my-model.gguf"))
def bench_trust(
    model: options.ModelOrBaseArgument = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs; each makes both comparisons.")] = 100,
    slowdown: Annotated[
        float, typer.Option(help="Factor on the time of each batch in the slowed copy.")
    ] = 1.05,
    rounds: Annotated[int, typer.Option(min=8, help="Rounds per comparison, of two runs per model.")] = 24,
    prompt_tokens: options.PromptTokens = 16,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode.")] = 8,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Test whether bench latency can be trusted on this machine.

    A model is compared with itself and with a slowed copy.
    """
    from ...bench.speed.aa_test import aa_test_table, run_aa_test

    model = model or options.default_base()
    options.probe_files(model, untrusted=untrusted)
    with progress_bar("trust") as progress:
        report = run_aa_test(
            model,
            workload=workload(prompt_tokens, decode_tokens, threads),
            runs=runs,
            slowdown=slowdown,
            rounds=rounds,
            progress=progress,
        )
    show_report(as_json, report, aa_test_table)


@app.command("clients", epilog=options.example("bench clients http://127.0.0.1:8080 http://127.0.0.1:8081"))
def bench_clients(
    urls: Annotated[
        list[str], typer.Argument(metavar="URL", help="URLs of running servers; ratios refer to the first.")
    ],
    clients: Annotated[int, typer.Option(min=1, max=256, help="Concurrent clients.")] = 8,
    questions: Annotated[int, typer.Option(min=1, help="Questions per client and round.")] = 4,
    max_tokens: options.MaxTokens = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each measures every server once.")] = 8,
    as_json: options.Json = False,
) -> None:
    """Compare OpenAI-compatible servers under concurrent clients."""
    from ...bench.speed.load_test import ClientLoad, load_test_table, run_load_test

    load = ClientLoad(clients, questions, max_tokens)
    with progress_bar("clients") as progress:
        report = run_load_test(urls, load=load, rounds=rounds, progress=progress)
    show_report(as_json, report, load_test_table)


@app.command("cluster", epilog=options.example("bench cluster model.gguf --workers 1,2 --threads 1"))
def bench_cluster(
    model: options.ModelOrBaseArgument = None,
    ray: options.Ray = "local",
    ray_insecure: options.RayInsecure = False,
    workers: Annotated[str, typer.Option(help="Numbers of workers to compare.")] = "1,2",
    questions: Annotated[int, typer.Option(min=1, help="Questions per round.")] = 200,
    max_tokens: options.MaxTokens = 64,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each engine.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each measures every mode once.")] = 3,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Compare a batch on a local engine and on a Ray cluster."""
    from ...bench.speed.ray_scaling import ray_scaling_table, run_ray_scaling

    model = model or options.default_base()
    options.probe_files(model, untrusted=untrusted)
    with progress_bar("cluster") as progress:
        report = run_ray_scaling(
            model,
            ray or "local",
            parse_numbers("--workers", workers),
            insecure=ray_insecure,
            questions=questions,
            max_tokens=max_tokens,
            threads=threads,
            rounds=rounds,
            progress=progress,
        )
    show_report(as_json, report, ray_scaling_table)


@app.command("attention", epilog=options.example("bench attention model.gguf --depths 0,256,1024"))
def bench_attention(
    model: options.ModelOrBaseArgument = None,
    depths: Annotated[str, typer.Option(help="Tokens in the KV cache at which to decode.")] = "0,256,1024",
    sequences: Annotated[str, typer.Option(help="Numbers of concurrent sequences.")] = "1,4,8",
    rounds: Annotated[int, typer.Option(min=8, help="Rounds; each measures every way once.")] = 8,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Compare flash and standard attention by depth.

    Flash attention is also measured with other types of the KV cache.
    """
    from ...bench.speed.attention_sweep import attention_table, run_attention_sweep

    model = model or options.default_base()
    options.probe_files(model, untrusted=untrusted)
    with progress_bar("attention") as progress:
        report = run_attention_sweep(
            model,
            depths=parse_numbers("--depths", depths),
            sequences=parse_numbers("--sequences", sequences),
            threads=threads,
            rounds=rounds,
            progress=progress,
        )
    show_report(as_json, report, attention_table)


@app.command("tune", epilog=options.example("bench tune model.gguf"))
def bench_tune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="GGUF file that will be used.")],
    keep: Keep = True,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Find the fastest attention, KV type, threads and micro-batch.

    The first engine for a model's shape measures them in three seconds; this takes longer. Unless --no-keep
    is given, all engines with models of this shape use the result.
    """
    from ...bench.speed.engine_tuning import engine_tuning_table, run_engine_tuning

    options.probe_files(model, untrusted=untrusted)
    with progress_bar("tune") as progress:
        tuning, saved = run_engine_tuning(model, keep=keep, progress=progress)
    if saved:
        note(f"saved in {' and '.join(map(str, saved))}")
    show_report(as_json, tuning, engine_tuning_table)


@app.command("types", epilog=options.example("bench types -o costs.json", "bench types --target wasm"))
def bench_types(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the costs, for plan and convert --costs."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="wasm: in a headless Chromium, as a page of `thirteen web`. Default: this engine."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=8, help="Rounds; each measures every type once. Default: 30, or 24 with --target wasm."
        ),
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the cost of a weight of each type.

    It takes three to six minutes and 4.3 GB in the cache, which are freed at the end.
    With --target wasm it takes about three minutes, and needs Chromium or Chrome.
    """
    from ...bench.speed.type_costs import run_type_costs, type_costs_table, write_costs
    from ...bench.speed.wasm_type_costs import TARGET, run_wasm_type_costs
    from ...files.output import check_target

    if target not in {None, TARGET}:
        raise typer.BadParameter(f"--target {target!r}: must be {TARGET}, or left out for this machine")
    if target and threads:
        raise typer.BadParameter(f"--threads {threads}: with --target {target}, the page chooses them")
    if output:
        check_target(output)
    given: dict[str, Any] = {} if rounds is None else {"rounds": rounds}
    with progress_bar("types") as progress:
        report = (
            run_wasm_type_costs(progress=progress, **given)
            if target
            else run_type_costs(threads=threads, progress=progress, **given)
        )
    if output:
        write_costs(report, output)
    show_report(as_json, report, type_costs_table)
