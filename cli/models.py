"""Commands `thirteen models` and `thirteen models fetch`."""

import typer
from rich.table import Table

from . import options
from .console import out

app = typer.Typer(help="List and download the models of the catalogue.", invoke_without_command=True)


@app.callback(epilog=options.example("models fetch smollm2-135m"))
def models(context: typer.Context) -> None:
    """List the models and adapters of the catalogue."""
    if context.invoked_subcommand:
        return
    from ..models.catalogue import catalogue

    table = Table("name", "what", "parameters", "licence", box=None, pad_edge=False)
    table.add_row("embedded", f"{catalogue().embedded.base}, no download", "", "")
    for base in catalogue().bases.values():
        copy = f"; public copy: {base.public_copy}" if base.public_copy else ""
        what = base.hub_id + (f" (gated{copy})" if base.gated else "")
        table.add_row(base.name, what, f"{base.parameters:,}", base.licence)
    for adapter in catalogue().adapters.values():
        table.add_row(adapter.name, f"adapter for {adapter.base}", "", "")
    out.print(table)


@app.command("fetch", epilog=options.example("models fetch smollm2-135m"))
def models_fetch(name: options.BaseArgument, revision: options.Revision = None) -> None:
    """Download a base, verify its hashes, and print its path."""
    from ..models.fetch import fetch

    print(fetch(name, revision=revision, kind="base"))
