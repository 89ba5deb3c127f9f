"""Commands `thirteen models`: the catalogue, and the converted models in the cache."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from . import options
from .console import note, out, show_fields, show_result

if TYPE_CHECKING:
    from ..workflows.model_cache import CachedModel

CachedName = Annotated[str, typer.Argument(metavar="NAME", help="Name in `thirteen models list`.")]

_HELP = """List and download models, and manage converted ones.

Without a subcommand, the bases and adapters of the catalogue are listed. fetch downloads a base; list, show
and rm manage the converted models in the cache.
"""

app = typer.Typer(help=_HELP, invoke_without_command=True)


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


@app.command("list", epilog=options.example("models list"))
def models_list(as_json: options.Json = False) -> None:
    """List the converted models in the cache."""
    from ..workflows.model_cache import cached_models

    found = cached_models()
    table = Table("name", "base", box=None, pad_edge=False)
    for column in ("size", "bits", "tokens", "predicted KL", "last used"):
        table.add_column(column)
    for model in found:
        table.add_row(model.name, model.base, *_numbers(model).values())
    show_result(as_json, {"models": [asdict(model) for model in found]}, lambda: table)


@app.command("show", epilog=options.example("models show llama-3.2-1b-600MB"))
def models_show(name: CachedName, as_json: options.Json = False) -> None:
    """Show a converted model in the cache."""
    from ..workflows.model_cache import cached_model

    model = cached_model(name)
    rows = {"name": model.name, "base": model.base, "file": str(model.path)}
    show_fields(as_json, asdict(model), rows | _numbers(model))


@app.command("rm", epilog=options.example("models rm llama-3.2-1b-600MB"))
def models_rm(name: CachedName) -> None:
    """Delete a converted model from the cache.

    What was downloaded for it stays in the hub's cache.
    """
    from ..workflows.model_cache import remove_model

    model = remove_model(name)
    note(f"{model.path}: deleted, {model.file_bytes / 1e6:,.0f} MB")


def _numbers(model: "CachedModel") -> dict[str, str]:
    divergence = model.predicted_divergence
    return {
        "size": f"{model.file_bytes / 1e6:,.0f} MB",
        "bits": f"{model.bits_per_weight:.2f}",
        "tokens": f"{model.tokens:,}",
        "predicted KL": "" if divergence is None else f"{divergence:.4f} nats",
        "last used": datetime.fromtimestamp(model.used_at).isoformat(" ", "minutes"),
    }
