"""Command `thirteen demo`."""

import typer

from . import options
from .console import progress_bar, show_report

app = typer.Typer()


@app.command(epilog=options.example("demo"))
def demo(as_json: options.Json = False) -> None:
    """Convert the embedded model with and without its adapter, ask both, and compare them."""
    from ..workflows.demo import demo_table, run_demo

    with progress_bar("demo") as progress:
        report = run_demo(progress)
    show_report(as_json, report, demo_table)
