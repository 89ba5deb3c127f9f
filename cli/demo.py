"""Command `thirteen demo`."""

import typer

from ..files.progress import Progress
from . import options
from .console import err, note, run_bars, show_report, show_text
from .spinner import spinner

app = typer.Typer()


@app.command(epilog=options.example("demo"))
def demo(as_json: options.Json = False) -> None:
    """Convert, ask and compare the embedded model and its base.

    First the embedded model answers a question. Then its base is converted with and without 13 trained
    numbers. Both files answer some sums, and their right answers and times are compared.
    """
    from ..workflows import demo as workflow

    if not as_json:
        show_text(f"question: {workflow.QUESTION}")
        spinner.begin("loading…")
        answer = workflow.first_answer()
        spinner.end()
        show_text(f"answer:   {answer.text}\n")
    with run_bars() as run:

        def begin(name: str) -> Progress:
            if not err.is_terminal:
                note(name)
            return run.stage(name)

        report = workflow.run_demo(begin)
    show_report(as_json, report, workflow.demo_table)
