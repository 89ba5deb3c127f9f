"""Command `thirteen models`: the catalogue, and the converted models in the cache."""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from . import options
from .console import note, show_result

if TYPE_CHECKING:
    from ..models.catalogue import Catalogue
    from ..workflows.model_cache import CachedModel

app = typer.Typer()


@app.command(epilog=options.example("models", "models --remove llama-3.2-1b-600MB"))
def models(
    remove: Annotated[
        str | None, typer.Option(metavar="NAME", help="Delete a converted model from the cache.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List known bases and adapters, and converted models.

    Converted models are in the cache of this machine. What was downloaded for one stays in the hub's cache
    when it is removed.
    """
    from ..models.catalogue import catalogue
    from ..workflows.model_cache import cached_models, remove_model

    if remove:
        model = remove_model(remove)
        note(f"{model.path}: deleted, {model.file_bytes / 1e6:,.0f} MB")
        return
    known, cached = catalogue(), cached_models()
    facts: dict[str, Any] = {
        "bases": list(known.bases),
        "adapters": [{"name": name, "base": adapter.base} for name, adapter in known.adapters.items()],
        "models": [asdict(model) for model in cached],
    }
    show_result(as_json, facts, lambda: Group(_catalogue_table(known), "", _cache_table(cached)))


def _catalogue_table(known: "Catalogue") -> Table:
    table = Table("name", "what", "parameters", "licence", box=None, pad_edge=False)
    table.add_row("embedded", f"{known.embedded.base}, from the package index", "", "")
    for base in known.bases.values():
        copy = f"; public copy: {base.public_copy}" if base.public_copy else ""
        what = base.hub_id + (f" (gated{copy})" if base.gated else "")
        table.add_row(base.name, what, f"{base.parameters:,}", base.licence)
    for adapter in known.adapters.values():
        table.add_row(adapter.name, f"adapter for {adapter.base}", "", "")
    return table


def _cache_table(cached: "list[CachedModel]") -> Table:
    columns = ("name", "base", "size", "bits", "tokens", "converted", "file")
    table = Table(*columns, box=None, pad_edge=False)
    for model in cached:
        table.add_row(
            model.name,
            model.base,
            f"{model.file_bytes / 1e6:,.0f} MB",
            f"{model.bits_per_weight:.2f}",
            f"{model.tokens:,}",
            datetime.fromtimestamp(model.converted_at).isoformat(" ", "minutes"),
            str(model.path),
        )
    return table if cached else Table("no converted models in the cache", box=None, pad_edge=False)
