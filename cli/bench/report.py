"""Command `thirteen bench report`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import show_file

app = typer.Typer()


@app.command("report", epilog=options.example("bench report latency.json accuracy.json -o report.html"))
def bench_report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="What latency, accuracy, fidelity --json print.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write.")] = Path("report.html"),
    replace: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Write measurements as one HTML page.

    It has what was found in sentences, plots and tables.
    """
    from ...bench.report import read_reports, render_page
    from ...files.atomic_write import write_file
    from ...files.hashing import file_sha256
    from ...files.output import check_target

    check_target(output, replace=replace)
    reports = [report for path in files for report in read_reports(path)]
    write_file(output, render_page(reports).encode())
    show_file(output, file_sha256(output), as_json)
