"""The command `thirteen demo`."""

import typer

from .console import progress_bar, show_report
from .options import Json

app = typer.Typer()


@app.command(epilog="Example: thirteen demo")
def demo(as_json: Json = False) -> None:
    """The whole path on the embedded default: convert, ask, compare."""
    from ..workflows.demo import demo_table, run_demo

    with progress_bar("demo") as progress:
        report = run_demo(progress)
    show_report(as_json, report, demo_table)
