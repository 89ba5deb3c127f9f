"""Command `thirteen bench size`."""

import typer

from .. import options
from ..console import show_report

app = typer.Typer()


@app.command("size", epilog=options.example("bench size my-model.gguf"))
def bench_size(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Break down the size of a file, and compare it with its plan."""
    from ...bench.memory.size import run_size, size_table

    show_report(as_json, run_size(options.resolve_model(model, {})[0]), size_table)
