"""Command `thirteen tune`: an adapter by forward passes only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from .. import options
from ..console import command_line, err, interval_json, note, progress_bar, show_fields, warn

if TYPE_CHECKING:
    from ...learn.tune import TuneData, TuneProgress, TuneResult

app = typer.Typer()

_COLUMNS = ("generation", "restart", "best", "mean", "step", "validation accuracy", "95 %", "seconds")


@app.command(
    epilog=options.example("tune my-model.gguf --base smollm2-135m --data sums.jsonl --output my-adapter")
)
def tune(
    ctx: typer.Context,
    data: Annotated[Path, typer.Option(help="Training rows: JSON lines with question, answer, solution.")],
    output: options.AdapterOutput,
    model: options.AnsweringModelArgument = None,
    base: Annotated[str, typer.Option(help="Base that MODEL was made from, as in convert.")] = "embedded",
    held_out_data: Annotated[
        Path | None, typer.Option(help="File of rows to measure the result on. Default: some of --data.")
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Number of rows to measure the result on.")] = 400,
    checks: Annotated[int, typer.Option(min=1, help="Number of rows to select the best mean on.")] = 200,
    questions: Annotated[int, typer.Option(min=1, help="Number of rows to score each generation on.")] = 64,
    generations: Annotated[int, typer.Option(min=1, help="Maximum generations.")] = 60,
    population: Annotated[int, typer.Option(min=4, help="Candidates per generation.")] = 12,
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Initial step size. Default: one that changes the predictions by 0.1 nats of KL per token."
        ),
    ] = None,
    check_every: Annotated[int, typer.Option(min=1, help="Generations between checks of the mean.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 13,
    start: Annotated[
        str | None, typer.Option(help="Adapter over the same basis, or its code, to start from.")
    ] = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = 128,
    calculator: options.Calculator = True,
    context: options.Context = 512,
    basis: options.Basis = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Tune 13 numbers by forward passes, without gradients.

    The forward passes are those of the quantized model itself. Requires the extra `tune`.
    """
    from ...convert.adapter.tinylora_folder import read_tinylora_numbers
    from ...learn.cards import check_card, tune_card, write_card
    from ...learn.cma_search import SearchSettings
    from ...learn.objective import AnswerSettings
    from ...learn.tune import EngineSettings, TuneJob, tune_adapter
    from ...workflows.adapter_resolver import check_same_base, hub_id_of, resolve_basis

    # Options match the fields of AnswerSettings, SearchSettings and EngineSettings by name.
    answers = AnswerSettings(**options.matching_options(ctx, AnswerSettings))
    check_card(output)
    path = options.answering_model(model, threads)
    rows = _split_data(data, held_out_data, questions, (checks, held_out), seed)
    with progress_bar("basis") as progress:
        resolved = resolve_basis(base, basis, progress=progress)
    check_same_base(path, resolved)
    options.probe_files(path)
    search = SearchSettings(
        **options.matching_options(ctx, SearchSettings) | {"numbers": resolved.origin.numbers}
    )
    numbers = read_tinylora_numbers(options.resolve_adapter(start), resolved).astype(float) if start else None
    job = TuneJob(
        path,
        resolved,
        rows,
        output,
        search=search,
        answers=answers,
        engine=EngineSettings(**options.matching_options(ctx, EngineSettings)),
        measure_sigma=sigma is None,
        start=numbers,
        base_id=hub_id_of(resolved.origin.name),
    )
    with _live_table() as on_progress:
        result = tune_adapter(job, on_progress)
    write_card(output, tune_card(job, result, command_line(), data.name))
    if not result.improved:
        warn([f"no check was better than {start or 'the base: the numbers are all zero'}"])
    _show_result(result, output, as_json)


def _split_data(
    data: Path, held_out_data: Path | None, questions: int, counts: tuple[int, int], seed: int
) -> "TuneData":
    """Read the rows and split off those for checks and the held-out ones; no question is in two parts."""
    from ...learn.tune import TuneData
    from ...models.rows import other_questions, read_rows, split_rows

    checks, held_out = counts
    rows = read_rows(data, ("answer", "solution"))
    if held_out_data:
        held = read_rows(held_out_data, ("answer",))[:held_out]
        rows = other_questions(rows, held)
    else:
        rows, held = split_rows(rows, held_out, seed)
    rest, check_rows = split_rows(rows, checks, seed, option="--checks")
    return TuneData(rest, check_rows, held, questions)


@contextmanager
def _live_table() -> Iterator[Callable[["TuneProgress"], None]]:
    """Show generations on standard error: as a live table on a terminal, otherwise as lines."""
    table = Table(*_COLUMNS, box=None)
    live = Live(table, console=err, auto_refresh=False, transient=False) if err.is_terminal else None
    with live or nullcontext():

        def on_progress(progress: "TuneProgress") -> None:
            cells = _cells(progress)
            if live:
                table.add_row(*cells)
                live.refresh()
            else:
                note(", ".join(f"{name} {cell}" for name, cell in zip(_COLUMNS, cells, strict=True) if cell))

        yield on_progress


def _cells(progress: "TuneProgress") -> tuple[str, ...]:
    search, record = progress.search, progress.record
    checked = interval = ""
    if record.check:
        accuracy = record.check.accuracy
        checked = f"{record.check.score:.1%} (at first {progress.start.score:.1%})"
        interval = f"{accuracy.low:.1%} to {accuracy.high:.1%}"
    return (
        str(search.generation),
        str(search.restarts),
        f"{max(record.scores):.4f}",
        f"{sum(record.scores) / len(record.scores):.4f}",
        f"{search.sigma:.3g}",
        checked,
        interval,
        "resumed" if progress.resumed else f"{record.seconds:.1f}",
    )


def _show_result(result: "TuneResult", output: Path, as_json: bool) -> None:
    search, held, difference = result.search, result.held_out, result.held_out.difference
    before, after = held.accuracy
    facts = {
        "output": str(output),
        "numbers": [float(number) for number in result.best.numbers],
        "held_out": {"rows": len(held.before), "before": before, "after": after},
        "difference": interval_json(difference),
        "gained": held.gained,
        "lost": held.lost,
        "generations": search.generation,
        "restarts": search.restarts,
        "sigma": search.settings.sigma,
        "seconds": result.seconds,
        "questions": result.questions,
        "model_share": result.model_share,
        "swaps": result.cost.swaps,
        "swap_s": result.cost.swap_s,
    }
    rows = {
        "adapter": str(output),
        "right before": f"{before:.1%} of {len(held.before)} held-out rows",
        "right after": f"{after:.1%} ({held.gained} gained, {held.lost} lost)",
        "difference": f"{after - before:+.1%} (95 %: {difference.low:+.1%} to {difference.high:+.1%})",
        "generations": f"{search.generation}, {search.restarts} restarts, {result.seconds / 60:.1f} minutes",
        "time in the model": f"{result.model_share:.3f}",
    }
    show_fields(as_json, facts, rows)
