"""Command `thirteen bench sampler`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import progress_bar, show_report

app = typer.Typer()


@app.command("sampler", epilog=options.example("bench sampler model.gguf"))
def bench_sampler(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="GGUF file.")],
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to decode.")] = 128,
    threads: options.Threads = None,
    untrusted: options.Untrusted = False,
    as_json: options.Json = False,
) -> None:
    """Measure what choosing a token takes.

    Greedy, sampled, and without digits, beside the decode step for its logits. It takes some seconds.
    """
    from ...bench.speed.sampler_cost import run_sampler_cost, sampler_table

    options.probe_files(model, untrusted=untrusted)
    with progress_bar("tokens") as progress:
        report = run_sampler_cost(model, threads=threads, tokens=tokens, progress=progress)
    show_report(as_json, report, sampler_table)
