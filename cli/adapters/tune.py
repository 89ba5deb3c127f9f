"""Commands that tune an adapter by forward passes only, or prepare for it: `tune`, `sums`."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from .. import options
from ..console import command_line, err, interval_json, note, progress_bar, show_fields, warn

if TYPE_CHECKING:
    from ...learn.contrast_objective import ContrastOptions
    from ...learn.objective import AnswerSettings
    from ...learn.score_ranking import ScoreRanking
    from ...learn.tune import TuneData, TuneProgress, TuneResult
    from ...models.rows import TrainingRow

app = typer.Typer()

_OF_CONTRAST = ("clip", "kl", "branch_tokens", "rollouts_every")
_COLUMNS = ("generation", "restart", "best", "mean", "step", "validation accuracy", "95 %", "seconds")


@app.command(
    epilog=options.example(
        "sums --rows 3000 --held-out 1000 --output sums", "sums --steps 2 --output two-steps"
    )
)
def sums(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Prefix of the files OUTPUT.jsonl and OUTPUT-held-out.jsonl."),
    ],
    rows: Annotated[int, typer.Option(min=1, help="Number of training rows.")] = 3000,
    held_out: Annotated[int, typer.Option(min=1, help="Number of held-out rows.")] = 1000,
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            max=2,
            help="1: one step. 2: one or two, of greater variety, some with a number that is not needed.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 13,
    as_json: options.Json = False,
) -> None:
    """Generate word problems of one or two steps.

    They are JSON lines with question, solution and answer.
    """
    from ...files.atomic_write import atomic_write
    from ...files.output import check_target, with_added_suffix
    from ...learn.synthetic_sums import draw_sums
    from ...learn.two_step_sums import draw_two_step_sums

    draw = draw_sums if steps == 1 else draw_two_step_sums
    paths = [with_added_suffix(output, suffix) for suffix in (".jsonl", "-held-out.jsonl")]
    for path in paths:
        check_target(path)
    files = {}
    for path, count, is_held_out in zip(paths, (rows, held_out), (False, True), strict=True):
        drawn = draw(count, seed, held_out=is_held_out)
        with atomic_write(path) as file:
            file.writelines(f"{json.dumps(vars(row))}\n".encode() for row in drawn)
        files[str(path)] = len(drawn)
    show_fields(as_json, files, {path: f"{count:,} rows" for path, count in files.items()})


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
    score: Annotated[
        str,
        typer.Option(
            help="Score to maximize: reference (likelihood of solutions), own (likelihood of own right "
            "answers), answer (likelihood of the answer after own output), exact (accuracy) or contrast "
            "(likelihood of right against wrong rollouts where they part)."
        ),
    ] = "reference",
    rollouts: Annotated[
        Path | None, typer.Option(help="With --score contrast: file of thirteen rollouts, of MODEL.")
    ] = None,
    rollouts_every: Annotated[
        int, typer.Option(min=0, help="Generations between fresh rollouts of the search's mean; 0: never.")
    ] = 0,
    clip: Annotated[
        float, typer.Option(help="With --score contrast: change of a token's probability that still counts.")
    ] = 0.2,
    kl: Annotated[
        float, typer.Option(help="With --score contrast: weight of the divergence from the base.")
    ] = 0.1,
    branch_tokens: Annotated[
        int, typer.Option(min=1, help="With --score contrast: maximum tokens a question beyond its prompt.")
    ] = 64,
    generations: Annotated[int, typer.Option(min=1, help="Maximum generations.")] = 60,
    population: Annotated[int, typer.Option(min=4, help="Candidates per generation.")] = 12,
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Initial step size. Default: one that changes the predictions by 0.1 nats of KL per token, "
            "with contrast by 0.01."
        ),
    ] = None,
    check_every: Annotated[int, typer.Option(min=1, help="Generations between checks of the mean.")] = 5,
    patience: Annotated[
        int, typer.Option(min=1, help="Checks without improvement before a restart, or the end.")
    ] = 4,
    restarts: Annotated[int, typer.Option(min=0, help="Maximum restarts from the best mean.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 13,
    start: Annotated[
        str | None, typer.Option(help="Adapter over the same basis, or its code, to start from.")
    ] = None,
    rank_candidates: Annotated[
        int | None,
        typer.Option(
            min=4,
            help="Do not search: score that many random candidates and compare their order with that of "
            "their accuracy on the --checks rows.",
        ),
    ] = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = 128,
    calculator: options.Calculator = True,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Concurrent answers.")] = 16,
    context: options.Context = 512,
    basis: options.Basis = None,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Tune 13 numbers by forward passes, without gradients.

    The forward passes are those of the quantized model itself. Requires the extra `tune`.
    """
    from ...convert.adapter.tinylora_folder import read_tinylora_numbers
    from ...learn.cards import check_card, tune_card, write_card
    from ...learn.cma_search import SearchSettings
    from ...learn.contrast_objective import check_rollouts_given
    from ...learn.objective import AnswerSettings
    from ...learn.score_ranking import rank_candidates as ranked_candidates
    from ...learn.tune import EngineSettings, TuneJob, tune_adapter
    from ...workflows.adapter_resolver import check_same_base, hub_id_of, resolve_basis

    # Options match the fields of AnswerSettings, SearchSettings and EngineSettings by name.
    answers = AnswerSettings(**options.matching_options(ctx, AnswerSettings))
    check_rollouts_given(score, given=rollouts is not None)
    if not rollouts:
        options.refuse_given(ctx, _OF_CONTRAST, "requires --score contrast")
    check_card(output)
    required = ("answer", "solution") if score == "reference" else ("answer",)
    path = options.answering_model(model, threads)
    contrast = _contrast_options(ctx, path, answers, rollouts, rollouts_every) if rollouts else None
    pool = contrast.rows if contrast else None
    rows = _split_data(data, held_out_data, required, questions, (checks, held_out), seed, pool)
    with progress_bar("basis") as progress:
        resolved = resolve_basis(base, basis, progress=progress)
    check_same_base(path, resolved)
    options.probe_files(path, untrusted=untrusted)
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
        contrast=contrast,
    )
    if rank_candidates:
        with progress_bar("candidates") as progress:
            _show_ranking(ranked_candidates(job, rank_candidates, progress), output, as_json)
        return
    with _live_table() as on_progress:
        result = tune_adapter(job, on_progress)
    write_card(output, tune_card(job, result, command_line(), data.name))
    if not result.improved:
        warn([f"no check was better than {start or 'the base: the numbers are all zero'}"])
    _show_result(result, output, as_json)


def _contrast_options(
    ctx: typer.Context, model: Path, answers: "AnswerSettings", rollouts: Path, rollouts_every: int
) -> "ContrastOptions":
    """Read the rollouts; other options match the fields of ContrastSettings by name."""
    from ...learn.contrast import ContrastSettings
    from ...learn.contrast_objective import ContrastOptions, rollout_settings
    from ...learn.rollouts import read_rollouts

    found = read_rollouts(rollouts, rollout_settings(model, answers))
    settings = ContrastSettings(**options.matching_options(ctx, ContrastSettings))
    return ContrastOptions(found, settings, rollouts_every)


def _split_data(
    data: Path,
    held_out_data: Path | None,
    required: tuple[str, ...],
    questions: int,
    counts: tuple[int, int],
    seed: int,
    pool: "Sequence[TrainingRow] | None",
) -> "TuneData":
    """Read the rows and split off those for checks and the held-out ones.

    The rest are the pool, unless another one is given. No question is in two of the parts.
    """
    from ...learn.tune import TuneData
    from ...models.rows import other_questions, read_rows, split_rows

    checks, held_out = counts
    rows = read_rows(data, required)
    if held_out_data:
        held = read_rows(held_out_data, ("answer",))[:held_out]
        rows = other_questions(rows, held)
    else:
        rows, held = split_rows(rows, held_out, seed)
    rest, check_rows = split_rows(rows, checks, seed, option="--checks")
    if pool is not None:
        rest = other_questions(pool, (*check_rows, *held))
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


def _show_ranking(ranking: "ScoreRanking", output: Path, as_json: bool) -> None:
    facts = {
        "output": str(output),
        "score": ranking.score,
        "questions": ranking.questions,
        "checks": ranking.checks,
        "correlation": interval_json(ranking.correlation),
        "cost_ratio": interval_json(ranking.cost_ratio),
        "candidates": [asdict(candidate) for candidate in ranking.candidates],
    }
    rows = {
        "candidates": f"{len(ranking.candidates)}, with their scores and answers in {output}",
        "Spearman's rho": f"{ranking.correlation.text(2)} of {ranking.score} and accuracy (95 %)",
        "processor time": f"{ranking.cost_ratio.text(1)} a question by answers / by {ranking.score} (95 %)",
    }
    show_fields(as_json, facts, rows)


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
