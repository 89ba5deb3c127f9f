"""Command `thirteen doctor`."""

from dataclasses import asdict
from typing import Annotated

import typer

from . import options
from .console import note, out, printable, progress_bar, run_bars, show_fields

PROBLEMS_FOUND = 1

app = typer.Typer()


@app.command(epilog=options.example("doctor", "doctor --model my-model.gguf --speed", "doctor --tune"))
def doctor(
    speed: Annotated[
        bool, typer.Option("--speed", help="Also time this engine beside plain llama-cpp-python: 20 seconds.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="First measure at more length, in 40 seconds, which attention, KV type and threads "
            "are the fastest, for answers, servers and batches with models of this shape.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Also plan how this model will run, as in ask. Default with --speed or --tune: embedded."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what this machine has, and what is wrong.

    It looks at the processor, the build of llama.cpp, memory, limits, the cache and the installed packages.
    With a model, it also shows the memory and settings with which an engine will run it. The exit status is 1
    if something is wrong.
    """
    from ..workflows.doctor import diagnose

    planned = model or ("embedded" if speed or tune else None)
    if tune and planned:
        _tune(planned)
    path = options.resolve_model(planned).model if planned else None
    with run_bars() as run:
        findings = diagnose(path if speed else None, run.when_needed("speed"))
    rows = {finding.name: finding.value for finding in findings}
    plan = None
    if path:
        from ..runtime.plan.plan import EnginePlan

        plan = EnginePlan.make(path)
        rows |= plan.rows
    problems = [finding.problem for finding in findings if finding.problem]
    show_fields(as_json, {"findings": [*map(asdict, findings)], "plan": plan and plan.json}, rows)
    if not as_json:
        for problem in problems:
            out.print(f"wrong: {printable(problem)}", markup=False, soft_wrap=True)
    if problems:
        raise typer.Exit(PROBLEMS_FOUND)


def _tune(model: str) -> None:
    from ..bench.speed.engine_tuning import tune_engine

    path = options.probed_model(model).model
    with progress_bar("tune") as progress:
        tuned = tune_engine(path, progress)
    if disturbed := [name for name, tuning in tuned.items() if not tuning.quiet]:
        note(f"not saved, as other programs have disturbed it: {', '.join(disturbed)}")
