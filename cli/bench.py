"""The group of commands `thirteen bench …`, and `thirteen bench MODEL`."""

from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from ..errors import RequestError
from ..runtime.options import Effort
from . import options
from .application import SectionedGroup, advanced_option, app, command, example, refuse_given
from .console import json_text, progress_bar, run_bars, show, show_file, show_text

if TYPE_CHECKING:
    from ..bench.environment import BenchReport, ModelSource

DEFAULT = "latency"


class _ModelGroup(SectionedGroup):
    """A group whose first command can be left out before the name of a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; what resembles the name of a command is none of a model."""
        known = [*self.commands, *ctx.help_option_names]
        if args and args[0] not in known and not get_close_matches(args[0], known, cutoff=0.8):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(
    cls=_ModelGroup,
    help="Measure latency, right answers and fidelity.",
    epilog=example("bench base.gguf --adapter my-adapter --quick", "bench latency base.gguf adapted.gguf"),
    subcommand_metavar="MODEL | COMMAND [ARGS]...",
)
app.add_typer(bench, name="bench")


@command(
    "bench latency base.gguf adapted.gguf",
    "bench base.gguf --adapter my-adapter --quick",
    "bench model.gguf --peers",
    group=bench,
)
def latency(
    ctx: typer.Context,
    model: options.ModelArgument,
    adapted: Annotated[
        str | None, Argument(metavar="ADAPTED", help="Adapted model; MODEL is its base.")
    ] = None,
    adapter: Annotated[str | None, Option(help="Adapter to apply at run time.")] = None,
    quick: Annotated[bool, Option("--quick", help="Speed, size and right answers in a minute.")] = False,
    data: Annotated[str | None, Option(help="With --quick: questions, as in bench accuracy.")] = None,
    peers: Annotated[bool, Option("--peers", help="Compare with llama-cpp-python instead.")] = False,
    rounds: Annotated[int, Option(min=8, help="Rounds of four runs, two of each model.")] = 8,
    prompt_tokens: Annotated[int, Option(min=1, help="Tokens of the question.")] = 128,
    decode_tokens: Annotated[int, Option(min=1, help="Tokens of the answer after the first.")] = 64,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure latency, memory and size.

    Of a model alone, or of an adapted model and its base. `thirteen bench MODEL` is short for it.
    """
    from ..bench.latency import run_latency
    from ..bench.peers import run_peers
    from ..bench.workload import Workload
    from ..runtime.machine import default_threads

    if quick:
        refuse_given(ctx, ("rounds", "prompt_tokens", "decode_tokens", "peers"), "not with --quick")
        _quick(model, adapted, adapter, data, threads or default_threads(), as_json)
        return
    refuse_given(ctx, ("data",), "requires --quick")
    work = Workload(prompt_tokens, decode_tokens, threads or default_threads(), adaptive_threads=peers)
    if peers:
        refuse_given(ctx, ("adapted", "adapter"), "not with --peers")
        with progress_bar("peers") as progress:
            report: BenchReport = run_peers(_source(model, None, threads).model, work, rounds, progress)
    else:
        models = _compared(model, adapted, adapter, threads)
        with progress_bar("latency") as progress:
            report = run_latency(models, work, rounds=rounds, progress=progress)
    show(as_json, report, report)


def _quick(
    model: str, adapted: str | None, adapter: str | None, data: str | None, threads: int, as_json: bool
) -> None:
    """Measure for a minute; what is found is printed at once."""
    from ..bench.accuracy.accuracy import AccuracyRequest
    from ..bench.accuracy.datasets import load_question_set
    from ..bench.accuracy.prompts import PromptSettings
    from ..bench.quick import SECONDS, quick_accuracy, quick_latency
    from ..models.passages import HELD_OUT_SUMS

    questions = load_question_set(str(HELD_OUT_SUMS) if data is None else data)  # before a download
    models = _compared(model, adapted, adapter, threads)
    end = perf_counter() + SECONDS
    request = AccuracyRequest(models=models, questions=questions, settings=PromptSettings(threads=threads))
    with progress_bar("latency") as progress:
        latency = quick_latency(models, threads, end, progress)
    if not as_json:
        show_text("\n".join(latency.verdict))
    with run_bars() as run:
        accuracy = quick_accuracy(request, min(latency.decode.medians), end, run.stage)
    if as_json:
        print(json_text({"latency": latency, "accuracy": accuracy}))
    else:
        show_text(accuracy.verdict[0])


@command("bench tune my-model.gguf", group=bench)
def tune(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Find the fastest settings for a model here.

    It times attention, KV type, library and threads, in one to three minutes for a model of half a billion
    weights. What is faster than the default is used from then on, for models of this shape and type.
    """
    from ..bench.tune import tune_engine

    path = _source(model, None, None).model
    with progress_bar("tune") as progress:
        report = tune_engine(path, progress=progress)
    show(as_json, report, report)


@command("bench fidelity reference-F16.gguf my-model.gguf", group=bench)
def fidelity(
    reference: Annotated[str, Argument(metavar="REFERENCE", help="Adapted model in F16 or so.")],
    shipped: Annotated[str, Argument(metavar="SHIPPED", help="Adapted model, quantized.")],
    adapter: Annotated[str | None, Option(help="Adapter to apply to SHIPPED at run time.")] = None,
    base: Annotated[str | None, Option(help="Unadapted model in high precision.")] = None,
    shipped_base: Annotated[str | None, Option(help="Unadapted model, quantized.")] = None,
    data: Annotated[Path | None, Option(help="Texts as JSON lines. Default: built-in ones.")] = None,
    tokens: Annotated[int, Option(min=1, help="Maximum positions to compare.")] = 4096,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure what quantization changes.

    That is the KL divergence from the reference and, with --base and --shipped-base, how much of the
    adapter's effect remains.
    """
    from ..bench.environment import ModelSource
    from ..bench.fidelity.comparison import Role
    from ..bench.fidelity.fidelity import run_fidelity
    from ..models.passages import HELD_OUT

    if (base is None) != (shipped_base is None):
        raise RequestError("--base and --shipped-base require each other")
    if data is not None:
        data.stat()  # a missing file is refused before anything is downloaded
    models: dict[Role, ModelSource] = {
        "reference": _source(reference, None, threads),
        "shipped": _source(shipped, adapter, threads),
    }
    if base is not None and shipped_base is not None:
        models["base"] = _source(base, None, threads)
        models["shipped_base"] = _source(shipped_base, None, threads)
    with progress_bar("fidelity") as progress:
        report = run_fidelity(
            models, data=data or HELD_OUT, tokens=tokens, threads=threads, progress=progress
        )
    show(as_json, report, report)


@command("bench accuracy adapted.gguf --base base.gguf --data gsm8k", group=bench)
def accuracy(
    ctx: typer.Context,
    model: options.ModelArgument,
    data: Annotated[str, Option(help="Questions: gsm8k, svamp, or JSON lines with question, answer.")],
    base: Annotated[
        str | None, Option(help="Unadapted model to compare with; with --adapter, MODEL again.")
    ] = None,
    adapter: options.RuntimeAdapter = None,
    limit: Annotated[int | None, Option(min=1, help="Maximum questions, spread over the set.")] = None,
    prompt: Annotated[
        Literal["zero-shot", "bare", "refined", "8-shot"] | None,
        advanced_option(help="Text around a question. Default: zero-shot; bare for votes."),
    ] = None,
    effort: options.AnswerEffort = Effort.LOW,
    temperature: options.Temperature = 0.0,
    calculator: options.Calculator = True,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    timed: Annotated[int, advanced_option(min=0, help="Questions to time one by one; 0: none.")] = 16,
    ray: options.Ray = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure right answers, paired with a base's.

    An interrupted run resumes. Some of the questions are then asked one at a time, for the seconds that a
    user waits.
    """
    from ..bench.accuracy.accuracy import AccuracyRequest, run_accuracy
    from ..bench.accuracy.datasets import load_question_set
    from ..bench.accuracy.prompts import PromptSettings

    settings = PromptSettings(
        options=options.request_options(ctx), **options.matching_options(ctx, PromptSettings)
    )
    executor = options.batch_executor(ctx)
    questions = load_question_set(data).subsample(limit)
    models = [_source(model, adapter, threads)]
    if base is not None:
        models.insert(0, _source(base, None, threads))
    request = AccuracyRequest(models=models, questions=questions, settings=settings, timed=timed)
    with run_bars() as run:
        report = run_accuracy(request, executor, run.stage)
    show(as_json, report, report)


@command("bench report latency.json accuracy.json -o report.html", group=bench)
def report(
    files: Annotated[list[Path], Argument(metavar="FILE...", help="What bench … --json prints.")],
    output: Annotated[Path, Option("--output", "-o", help="HTML page to write.")] = Path("report.html"),
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write measurements as one HTML page.

    It has what was found in sentences, plots and tables.
    """
    from ..bench.report import read_reports, render_page
    from ..files.output import check_target, write_file
    from ..files.received_files import file_sha256

    check_target(output, replace=replace)
    reports = [report for path in files for report in read_reports(path)]
    write_file(output, render_page(reports).encode())
    show_file(output, file_sha256(output), as_json)


def _source(model: str, adapter: str | None, threads: int | None) -> "ModelSource":
    """Find a model and a run-time adapter, and first load what is not trusted in another process."""
    from ..bench.environment import ModelSource
    from ..runtime.trial import try_files

    files = options.resolve_model(model, adapter, threads=threads)
    try_files(files.model, files.adapters.values())
    return ModelSource(files.model, files.adapter)


def _compared(
    model: str, adapted: str | None, adapter: str | None, threads: int | None
) -> list["ModelSource"]:
    """The base and the adapted model, by a file of its own or an adapter at run time; or the model alone."""
    base = _source(model, None, threads)
    if adapted is None and adapter is None:
        return [base]
    return [base, _source(model if adapted is None else adapted, adapter, threads)]
