"""Command `thirteen bench constrained`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import progress_bar, show_report

app = typer.Typer()


@app.command("constrained", epilog=options.example("bench constrained model.gguf"))
def bench_constrained(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="GGUF file.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each measures everything once.")] = 8,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Measure what grammars cost and gain.

    Speed of decode with a grammar and without, of answers with long keys with forced tokens and without, time
    and memory of a compile. It takes one to three minutes.
    """
    from ...bench.speed.constrained import constrained_table, run_constrained

    options.probe_files(model, untrusted=untrusted)
    with progress_bar("rounds") as progress:
        report = run_constrained(model, threads=threads, rounds=rounds, progress=progress)
    show_report(as_json, report, constrained_table)
