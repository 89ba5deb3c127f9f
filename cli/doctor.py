"""Command `thirteen doctor`."""

from dataclasses import asdict

import typer

from . import options
from .console import out, printable, show_fields

PROBLEMS_FOUND = 1

app = typer.Typer()


@app.command(epilog=options.example("doctor"))
def doctor(as_json: options.Json = False) -> None:
    """Show what this machine has, and what is wrong.

    The exit status is 1 if something is wrong.
    """
    from ..workflows.doctor import diagnose

    diagnosis = diagnose()
    rows = {finding.name: finding.value for finding in diagnosis.findings}
    show_fields(as_json, asdict(diagnosis), rows)
    if not as_json:
        for problem in diagnosis.problems:
            out.print(f"wrong: {printable(problem)}", markup=False, soft_wrap=True)
    if diagnosis.problems:
        raise typer.Exit(PROBLEMS_FOUND)
