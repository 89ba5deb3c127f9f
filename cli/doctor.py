"""Command `thirteen doctor`."""

from typing import Annotated

import typer

from . import options
from .console import out, printable, show_fields

PROBLEMS_FOUND = 1

app = typer.Typer()


@app.command(epilog=options.example("doctor", "doctor --model my-model.gguf"))
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Also show the memory and settings with which this model will run.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check this machine and installation.

    What is wrong comes first, with what to do; the exit status is then 1.
    """
    from .findings import diagnose

    findings, plan = diagnose(), None
    if model:
        from ..runtime.plan.options import EngineOptions
        from ..runtime.plan.plan import EnginePlan

        plan = EnginePlan.make(options.resolve_model(model).model, EngineOptions())
    problems = [finding.problem for finding in findings if finding.problem]
    if not as_json:
        for line in [f"wrong: {problem}" for problem in problems] or ["Nothing is wrong."]:
            out.print(printable(line), markup=False, soft_wrap=True)
    rows = {finding.name: finding.value for finding in findings} | (plan.rows if plan else {})
    facts = {"findings": [finding._asdict() for finding in findings], "plan": plan and plan.json}
    show_fields(as_json, facts, rows)
    if problems:
        raise typer.Exit(PROBLEMS_FOUND)
