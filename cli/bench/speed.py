"""Commands `thirteen bench latency`, which `thirteen bench MODEL` is short for, and `thirteen bench tune`."""

from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from ..console import json_text, labelled_progress_bar, out, progress_bar, show_report

if TYPE_CHECKING:
    from pathlib import Path

    from ...bench.accuracy.datasets import QuestionSet
    from ...bench.environment import ModelSource
    from ...bench.workload import Workload

app = typer.Typer()


def model_source(model: str, adapter: str | None, threads: int | None) -> "ModelSource":
    """Find a model and a run-time adapter, and try what is not trusted."""
    from ...bench.environment import ModelSource

    files = options.probed_model(model, adapter, threads=threads)
    return ModelSource(files.model, files.adapter)


def compared_models(
    model: str, adapted: str | None, adapter: str | None, threads: int | None
) -> list["ModelSource"]:
    """The base and the adapted model, by a file of its own or an adapter at run time; or the model alone."""
    if adapted is None and adapter is None:
        return [model_source(model, None, threads)]
    base = model_source(model, None, threads)
    return [base, model_source(model if adapted is None else adapted, adapter, threads)]


@app.command(
    "latency",
    epilog=options.example(
        "bench latency base.gguf adapted.gguf",
        "bench base.gguf --adapter my-adapter --quick",
        "bench model.gguf --peers",
    ),
)
def bench_latency(
    ctx: typer.Context,
    model: options.ModelArgument,
    adapted: Annotated[
        str | None, typer.Argument(metavar="ADAPTED", help="Adapted model, to compare with MODEL, its base.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Adapter at run time: MODEL, or ADAPTED, is measured with it.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Speed, size and right answers, in a minute.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Questions of --quick, as in bench accuracy. Default: sums.")
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="Compare with llama-cpp-python on the same file instead.")
    ] = False,
    rounds: options.Rounds = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the question.")] = 128,
    decode_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer after the first.")] = 64,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure latency, memory and size.

    Of a model alone, or of an adapted model and its base. `thirteen bench MODEL` is short for it.
    """
    if quick or peers:
        option = "--quick" if quick else "--peers"
        given = ("rounds", "prompt_tokens", "decode_tokens", "peers") if quick else ("adapted", "adapter")
        options.refuse_given(ctx, given, f"not with {option}")
    if not quick:
        options.refuse_given(ctx, ("data",), "requires --quick")
    from ...bench.workload import Workload
    from ...runtime.machine import default_threads

    work = Workload(prompt_tokens, decode_tokens, threads or default_threads(), adaptive_threads=peers)
    if peers:
        _show_peers(options.probed_model(model, threads=threads).model, work, rounds, as_json)
        return
    questions = _load_questions(data) if quick else None  # before a model is downloaded
    models = compared_models(model, adapted, adapter, threads)
    if questions:
        _show_quick(models, questions, work.threads, as_json)
    else:
        _show_latency(models, work, rounds, as_json)


def _show_latency(models: "list[ModelSource]", work: "Workload", rounds: int, as_json: bool) -> None:
    from ...bench.latency import latency_table, run_latency
    from ...bench.table import findings

    with progress_bar("latency") as progress:
        report = run_latency(models, work, rounds=rounds, progress=progress)
    show_report(as_json, report, lambda report: findings(report.verdict, latency_table(report)))


def _show_peers(model: "Path", work: "Workload", rounds: int, as_json: bool) -> None:
    from ...bench.peers import peers_table, run_peers
    from ...bench.table import findings

    with progress_bar("peers") as progress:
        report = run_peers(model, work, rounds, progress)
    show_report(as_json, report, lambda report: findings(report.verdict, peers_table(report)))


def _load_questions(data: str | None) -> "QuestionSet":
    from ...bench.accuracy.datasets import load_question_set
    from ...models.texts import HELD_OUT_SUMS

    return load_question_set(str(HELD_OUT_SUMS) if data is None else data)


def _show_quick(models: "list[ModelSource]", questions: "QuestionSet", threads: int, as_json: bool) -> None:
    """Measure for a minute; what is found is printed at once."""
    from ...bench.accuracy.accuracy import AccuracyRequest
    from ...bench.accuracy.prompts import PromptSettings
    from ...bench.quick import SECONDS, quick_accuracy, quick_latency

    end = perf_counter() + SECONDS
    request = AccuracyRequest(models=models, questions=questions, settings=PromptSettings(threads=threads))
    with progress_bar("latency") as progress:
        latency = quick_latency(models, threads, end, progress)
    if not as_json:
        out.print("\n".join(latency.verdict), markup=False, soft_wrap=True)
    with labelled_progress_bar() as progress_of:
        accuracy = quick_accuracy(request, min(latency.decode.medians), end, progress_of)
    if as_json:
        print(json_text({"latency": asdict(latency), "accuracy": asdict(accuracy)}))
    else:
        out.print(accuracy.verdict[0], markup=False, soft_wrap=True)


@app.command("tune", epilog=options.example("bench tune my-model.gguf"))
def bench_tune(
    model: options.ModelArgument,
    rounds: Annotated[int, typer.Option(min=8, help="Rounds; each times every way once.")] = 8,
    as_json: options.Json = False,
) -> None:
    """Find the fastest settings for a model here.

    It times attention, KV type, library and threads, in one to three minutes for a model of half a billion
    weights. What is faster than the default is used from then on, for models of this shape and type.
    """
    from ...bench.table import findings
    from ...bench.tune import tune_engine, tune_table

    path = options.probed_model(model).model
    with progress_bar("tune") as progress:
        report = tune_engine(path, rounds, progress)
    show_report(as_json, report, lambda report: findings(report.verdict, tune_table(report)))
