"""Command `thirteen vocabulary`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from ..console import facts_table, show_result, stage_bars

if TYPE_CHECKING:
    from rich.console import Group

    from ...workflows.vocabulary_report import VocabularyReport

app = typer.Typer()


@app.command(
    epilog=options.example("vocabulary llama-3.2-1b --output vocabulary.json"),
)
def vocabulary(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="List of tokens to write, as JSON.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts of your own, besides the built-in ones: JSON lines with text, or question and answer."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Number of tokens that stay.")] = 49152,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Choose which tokens of a base a smaller file keeps.

    The list is for convert. The tables show why tokens stay, and how much of held-out texts this and other
    sizes keep: the tokens unchanged, and the probability that the base gives to others.
    """
    from ...files.output import check_target
    from ...models.fetch import fetch
    from ...workflows.vocabulary_report import report_vocabulary

    path = fetch(base, revision=revision, kind="base")
    check_target(output, path, *filter(None, (texts,)))
    with stage_bars() as stage:
        report = report_vocabulary(path, size, output, texts=texts, threads=threads, stage=stage)
    show_result(as_json, asdict(report), lambda: _tables(report))


def _tables(report: "VocabularyReport") -> "Group":
    from rich.console import Group
    from rich.table import Table

    facts = {
        "list": report.output,
        "tokens": f"{report.tokens:,} of {report.of:,}; at least {report.required:,}",
        **{f"kept, {kind}": f"{count:,}" for kind, count in report.kinds.items() if count},
        "sha256": report.sha256,
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("tokens", justify="right")
    table.add_column("saved as Q4_K", justify="right")
    table.add_column("texts")
    for name in ("unchanged", "outside, mean", "median", "in answers, mean", "median"):
        table.add_column(name, justify="right")
    for size in report.sizes:
        for place, one in enumerate(size.coverage):
            first = (f"{size.tokens:,}", f"{size.saved_bytes / 1e6:.1f} MB") if place == 0 else ("", "")
            means = (one.outside_mean, one.outside_median, one.answers_mean, one.answers_median)
            texts = ("" if value is None else f"{value:.1e}" for value in means)
            table.add_row(*first, one.texts, f"{one.unchanged:.2%}", *texts)
    return Group(facts_table(facts), "", table)
