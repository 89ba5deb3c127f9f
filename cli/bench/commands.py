"""The group of commands `thirteen bench …`, and `thirteen bench MODEL`."""

from difflib import get_close_matches
from time import perf_counter
from typing import Annotated, Any

import typer

from .. import options
from ..console import duration_text, labelled_progress_bar, note, show_report
from ..help_sections import SectionedGroup
from . import quality, report, speed

DEFAULT = "model"


class _ModelGroup(SectionedGroup):
    """A group whose first command can be left out before the name of a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; what resembles the name of a command is none of a model."""
        known = [*self.commands, *ctx.help_option_names]
        if args and args[0] not in known and not get_close_matches(args[0], known, cutoff=0.8):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ModelGroup,
    help="Measure a model with and without an adapter, or one quantity.",
    epilog=options.example(
        "bench base.gguf --adapter my-adapter --data gsm8k --limit 100",
        "bench latency base.gguf adapted.gguf",
    ),
    no_args_is_help=True,
    subcommand_metavar="MODEL | COMMAND [ARGS]...",
)


@app.command(
    "model", epilog=options.example("bench model base.gguf --adapter my-adapter --data gsm8k --limit 100")
)
def bench_model(
    ctx: typer.Context,
    model: options.ModelArgument,
    adapter: options.ModelAdapter = None,
    data: Annotated[
        str | None, typer.Option(help="Also measure accuracy, as in bench accuracy --data.")
    ] = None,
    limit: options.Limit = None,
    max_tokens: options.MaxTokens = 512,
    think: options.Think = None,
    think_budget: options.ThinkBudget = None,
    rounds: options.Rounds = 8,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Speed, size and right answers in three sentences: under a minute for the embedded model, "
            "three for one of a billion weights. Without --data, of sums that come with the package.",
        ),
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure latency and accuracy, with and without an adapter.

    `thirteen bench MODEL` is short for it. It first estimates how long it takes; the first line of the result
    says what the adapter costs and gains. Interrupted, it says what was finished.
    """
    started = perf_counter()
    from ...bench.accuracy.datasets import load_question_set
    from ...bench.accuracy.prompts import PromptSettings
    from ...bench.benchmark import BenchmarkRequest, benchmark_tables, run_benchmark
    from ...models.texts import HELD_OUT_SUMS

    if data is None and quick:
        data = str(HELD_OUT_SUMS)
    elif data is None:
        options.refuse_given(ctx, ("limit", "max_tokens", "think", "think_budget"), "requires --data")
    questions = load_question_set(data).subsample(limit) if data else None
    files = options.probed_model(model, adapter, threads=threads)
    request = BenchmarkRequest(
        model=files.model,
        adapter=files.adapter,
        questions=questions,
        settings=PromptSettings(**options.matching_options(ctx, PromptSettings)),
        rounds=rounds,
        threads=threads,
        quick=quick,
        started=started,
    )
    finished: list[str] = []

    def announce(what: str, seconds: float) -> None:
        note(f"{what} {duration_text(seconds)}")

    try:
        with labelled_progress_bar() as progress:
            report = run_benchmark(request, announce, progress, finished.append)
    except BaseException:
        if finished:
            note(f"not finished; measured so far: {' '.join(finished)}")
        raise
    show_report(as_json, report, benchmark_tables)


for _module in (speed, quality, report):
    app.add_typer(_module.app)
