"""Command `thirteen demo`."""

import typer

from . import options
from .console import progress_bar, show_report

app = typer.Typer()


@app.command(epilog=options.example("demo"))
def demo(as_json: options.Json = False) -> None:
    """Convert, ask and compare the embedded model and its base.

    The embedded model is converted with and without its adapter. Both answer a question and some sums, and
    their speed is compared.
    """
    from ..workflows.demo import demo_table, run_demo

    with progress_bar("demo") as progress:
        report = run_demo(progress)
    show_report(as_json, report, demo_table)
