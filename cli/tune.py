"""The commands that make an adapter by forward passes only: `tune`, and `sums` to have questions for it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from .console import command_line, err, facts_table, progress_bar, show_result, warn
from .options import Json, Threads

if TYPE_CHECKING:
    from ..models.tuning.objective import AnswerSettings
    from ..models.tuning.tune import TuneData, TuneProgress, TuneResult

app = typer.Typer()


@app.command(epilog="Example: thirteen sums --rows 3000 --held-out 1000 --output sums")
def sums(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The files' name: OUTPUT.jsonl and OUTPUT-held-out.jsonl.")
    ],
    rows: Annotated[int, typer.Option(min=1, help="Questions to learn from.")] = 3000,
    held_out: Annotated[int, typer.Option(min=1, help="Questions to measure on.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same questions.")] = 13,
    as_json: Json = False,
) -> None:
    """Draw one-step sums in words, as JSON lines of question, solution and answer."""
    from ..files.atomic_write import atomic_write
    from ..files.output import check_target
    from ..models.tuning.synthetic_sums import draw_sums

    files = {}
    for path, count, part in (
        (output.with_name(f"{output.name}.jsonl"), rows, False),
        (output.with_name(f"{output.name}-held-out.jsonl"), held_out, True),
    ):
        check_target(path)
        drawn = draw_sums(count, seed, held_out=part)
        with atomic_write(path) as file:
            file.writelines(f"{json.dumps(vars(row))}\n".encode() for row in drawn)
        files[str(path)] = len(drawn)
    show_result(
        as_json, files, lambda: facts_table({path: f"{count:,} rows" for path, count in files.items()})
    )


@app.command(
    epilog="Example: thirteen tune my-model.gguf --base smollm2-135m --data sums.jsonl "
    "--held-out-data sums-held-out.jsonl --output my-adapter"
)
def tune(
    data: Annotated[Path, typer.Option(help="JSON lines: question, answer, solution.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The adapter's folder; a run there goes on.")
    ],
    model: Annotated[
        str | None,
        typer.Argument(help="The GGUF that answers; by default the embedded model, as ask runs it."),
    ] = None,
    base: Annotated[str, typer.Option(help="The base it was made from: see convert.")] = "embedded",
    held_out_data: Annotated[
        Path | None, typer.Option(help="Rows to measure the result on; by default some of --data.")
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="How many rows to measure the result on.")] = 400,
    checks: Annotated[int, typer.Option(min=1, help="How many rows to choose among means by.")] = 200,
    questions: Annotated[int, typer.Option(min=1, help="How many rows a generation is scored on.")] = 64,
    score: Annotated[
        str,
        typer.Option(
            help="own (likelier right answers of its own), reference (likelier solutions), "
            "answer (a likelier answer after its own words) or exact."
        ),
    ] = "reference",
    generations: Annotated[int, typer.Option(min=1, help="The most of them.")] = 60,
    population: Annotated[int, typer.Option(min=4, help="Candidates in a generation.")] = 12,
    sigma: Annotated[
        float | None, typer.Option(help="The first step's size; by default what moves a token by 0.1 nats.")
    ] = None,
    check_every: Annotated[int, typer.Option(min=1, help="Check the mean after so many generations.")] = 5,
    patience: Annotated[
        int, typer.Option(min=1, help="Checks without progress before a restart, or the end.")
    ] = 4,
    restarts: Annotated[int, typer.Option(min=0, help="How often to begin again from the best.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of candidates and questions.")] = 13,
    start: Annotated[
        str | None, typer.Option(help="An adapter over the same basis, or its code, to begin with.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What to tell the model beforehand.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 128,
    calculator: Annotated[bool, typer.Option(help="Complete sums in answers, as ask does.")] = True,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Answers that run at once.")] = 16,
    context: Annotated[int, typer.Option(min=1, help="The most tokens of question and answer.")] = 512,
    basis: Annotated[Path | None, typer.Option(help="A file of: thirteen adapter basis.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Learn 13 numbers on the quantized model itself, by forward passes only: no gradients."""
    from ..convert.adapter.tinylora_folder import read_tinylora_numbers
    from ..models.cards import RunFacts, tune_card, write_card
    from ..models.fetch import fetch
    from ..models.tuning.cma_search import SearchSettings
    from ..models.tuning.objective import AnswerSettings
    from ..models.tuning.tune import EngineSettings
    from ..models.tuning.tune import tune as run
    from ..workflows.adapter_resolver import check_same_base, hub_id_of, resolve_adapter_folder, resolve_basis
    from ..workflows.default_model import default_model

    asking = AnswerSettings(score, system, max_tokens, calculator)
    rows = _data(data, held_out_data, questions, (checks, held_out), seed, asking)
    path = fetch(model, kind="base") if model else default_model(adapted=False)
    with progress_bar("basis") as progress:
        made = resolve_basis(base, basis, progress=progress)
    check_same_base(path, made)
    settings = SearchSettings(
        made.origin.numbers,
        1.0 if sigma is None else sigma,
        population,
        generations,
        check_every,
        patience,
        restarts,
        seed,
    )
    with _live() as told:
        result = run(
            path,
            made,
            rows,
            output,
            settings=settings,
            asking=asking,
            machine=EngineSettings(threads, slots, context),
            step=sigma is None,
            start=read_tinylora_numbers(resolve_adapter_folder(start), made).astype(float) if start else None,
            base_id=hub_id_of(made.origin.name),
            told=told,
        )
    facts = RunFacts(command_line(), data.name, path.name, hub_id_of(made.origin.name))
    write_card(output, tune_card(output.name, result, made, facts))
    if not result.found:
        warn([f"no check found anything better than {start or 'the base: the numbers are all zero'}"])
    _show(result, output, as_json)


def _data(
    data: Path,
    held_out_data: Path | None,
    questions: int,
    counts: tuple[int, int],
    seed: int,
    asking: "AnswerSettings",
) -> "TuneData":
    """The rows, dealt by the seed."""
    from ..models.rows import read_rows, split_rows
    from ..models.tuning.tune import TuneData

    needs = ("answer", "solution") if asking.score == "reference" else ("answer",)
    checks, held_out = counts
    rows = read_rows(data, needs)
    if held_out_data:
        held = read_rows(held_out_data, ("answer",))[:held_out]
    else:
        rows, held = split_rows(rows, held_out, seed)
    pool, checked = split_rows(rows, checks, seed)
    return TuneData(pool, checked, held, questions)


@contextmanager
def _live() -> Iterator[Callable[["TuneProgress"], None]]:
    """A table of generations on standard error: live on a terminal, else a line for each."""
    table = Table(
        "generation", "restart", "best", "mean", "step", "right in checks", "95 %", "seconds", box=None
    )
    with (
        Live(table, console=err, auto_refresh=False, transient=False)
        if err.is_terminal
        else nullcontext() as live
    ):

        def told(progress: "TuneProgress") -> None:
            cells = _cells(progress)
            if live is None:
                names = (column.header for column in table.columns)
                said = (f"{name} {cell}" for name, cell in zip(names, cells, strict=True) if cell)
                err.print(", ".join(said), markup=False, soft_wrap=True)
                return
            table.add_row(*cells)
            live.refresh()

        yield told


def _cells(progress: "TuneProgress") -> tuple[str, ...]:
    search, last = progress.search, progress.last
    checked = interval = ""
    if last.check:
        accuracy = last.check.accuracy
        checked = f"{last.check.score:.1%} (at first {progress.start.score:.1%})"
        interval = f"{accuracy.low:.1%} to {accuracy.high:.1%}"
    return (
        str(search.generation),
        str(search.restart),
        f"{max(last.scores):.4f}",
        f"{sum(last.scores) / len(last.scores):.4f}",
        f"{search.sigma:.3g}",
        checked,
        interval,
        "on record" if progress.resumed else f"{last.seconds:.1f}",
    )


def _show(result: "TuneResult", output: Path, as_json: bool) -> None:
    before, after = result.held_out.accuracy
    difference = result.held_out.difference
    facts = {
        "output": str(output),
        "numbers": [float(number) for number in result.best.numbers],
        "held_out": {"rows": len(result.held_out.before), "before": before, "after": after},
        "difference": {"low": difference.low, "value": difference.estimate, "high": difference.high},
        "gained": result.held_out.gained,
        "lost": result.held_out.lost,
        "generations": result.generations,
        "restarts": result.restarts,
        "sigma": result.sigma,
        "seconds": result.seconds,
        "questions": result.questions,
        "model_share": result.model_share,
        "swaps": result.spent.swaps,
        "swap_s": result.spent.swap_s,
    }
    rows = {
        "adapter": str(output),
        "right before": f"{before:.1%} of {len(result.held_out.before)} held-out rows",
        "right after": f"{after:.1%} ({result.held_out.gained} gained, {result.held_out.lost} lost)",
        "difference": f"{after - before:+.1%} (95 %: {difference.low:+.1%} to {difference.high:+.1%})",
        "generations": f"{result.generations}, {result.restarts} restarts, {result.seconds / 60:.1f} minutes",
        "time in the model": f"{result.model_share:.3f}",
    }
    show_result(as_json, facts, lambda: facts_table(rows))
