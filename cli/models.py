"""Command `thirteen models`: the catalogue and the cache, and what is in one model."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from . import options
from .application import command
from .console import note, printable, show, warn
from .convert import layout_rows

if TYPE_CHECKING:
    from ..models.catalogue import Catalogue, CatalogueBase
    from ..models.converted import CachedModel


@command("models", "models my-model.gguf --context 4096", "models --remove llama-3.2-1b-600MB")
def models(
    model: Annotated[
        str | None,
        Argument(metavar="MODEL", help=f"Show types, size, provenance and memory: {options.MODEL}"),
    ] = None,
    context: Annotated[int | None, Option(min=1, help="Context for the memory estimate.")] = None,
    remove: Annotated[str | None, Option(metavar="NAME", help="Delete a converted model.")] = None,
    as_json: options.Json = False,
) -> None:
    """List known and converted models, or show one.

    A tick marks the bases that fit in the memory that is available here, at 4.5 bits a weight, and a star the
    recommended one. GSM8K is a set of word problems; its makers report the share that a base has right.
    Tokens per second were measured on two cores of a server's processor. What was downloaded for a
    converted model stays in the hub's cache when it is removed. The memory of a model is an estimate from
    its header; nothing is loaded.
    """
    from ..models.converted import remove_model

    if remove is not None:
        removed = remove_model(remove)
        note(f"{removed.path}: deleted, {removed.file_bytes / 1e6:,.0f} MB")
        if as_json:
            show(True, removed)
    elif model is not None:
        _show_model(model, context, as_json)
    else:
        _list_models(as_json)


def _show_model(model: str, context: int | None, as_json: bool) -> None:
    from ..models.inspection import inspect_gguf, memory_profiles

    profiles = memory_profiles(context=context)
    found = inspect_gguf(options.resolve_model(model).model, profiles)
    facts = vars(found).copy()
    layout = facts.pop("layout")
    facts |= {name: getattr(layout, name) for name in ("file_bytes", "weights", "bits_per_weight", "types")}
    rows = {
        "file": found.path,
        "model": f"{found.name or 'unnamed'} ({found.architecture}), {layout.weights:,} weights",
        **layout_rows(layout),
    }
    rows |= {f"memory, {name}": memory.text for name, memory in found.memory.items()}
    rows |= {f"{found.architecture}.{key}": value for key, value in found.metadata.items()}
    rows |= {f"tokenizer.{key}": value for key, value in found.tokenizer.items()}
    rows |= {f"thirteen.{key}": value for key, value in found.provenance.items()}
    show(as_json, facts, rows)


def _list_models(as_json: bool) -> None:
    from ..errors import OutputError
    from ..models.catalogue import catalogue
    from ..models.converted import cached_models
    from ..runtime.machine import available_bytes

    known, cached = catalogue(), []
    try:
        cached = cached_models()
    except OutputError as error:  # the catalogue is shown without a cache
        warn([str(error)])
    available = available_bytes()
    best = known.recommended(available)
    fitting = sorted(name for name, base in known.bases.items() if base.fits(available))
    facts: dict[str, Any] = {
        "bases": list(known.bases),
        "fitting": fitting,
        "recommended": best.name if best else None,
        "adapters": [{"name": name, "base": adapter.base} for name, adapter in known.adapters.items()],
        "models": cached,
    }
    show(as_json, facts, Group(_catalogue_table(known, best, fitting), "", _cache_table(cached)))


def _catalogue_table(known: "Catalogue", best: "CatalogueBase | None", fitting: list[str]) -> Table:
    columns = ("", "name", "what", "parameters", "GSM8K right", "tokens/s", "license")
    table = Table(*columns, box=None, pad_edge=False)
    table.add_row("", "embedded", f"the default model: {known.embedded.base} with its adapter")
    for base in known.bases.values():
        copy = f"; public copy: {base.public_copy}" if base.public_copy else ""
        table.add_row(
            "*" if base == best else "✓" if base.name in fitting else "",
            base.name,
            base.hub_id + (f" (gated{copy})" if base.gated else ""),
            f"{base.parameters:,}",
            "" if base.gsm8k is None else f"{100 * base.gsm8k:.0f} %",
            "" if base.tokens_per_s is None else f"{base.tokens_per_s:.0f}",
            base.licence,
        )
    for adapter in known.adapters.values():
        table.add_row("", adapter.name, f"adapter for {adapter.base_file or adapter.base}")
    if best:
        table.caption = f"* recommended for this machine's memory: thirteen chat {best.name}"
        table.caption_justify = "left"
    return table


def _cache_table(cached: "list[CachedModel]") -> Table:
    columns = ("name", "base", "size", "bits", "tokens", "converted", "file")
    table = Table(*columns, box=None, pad_edge=False)
    for model in cached:
        cells = (
            model.name,
            model.base,
            f"{model.file_bytes / 1e6:,.0f} MB",
            f"{model.bits_per_weight:.2f}",
            f"{model.tokens:,}",
            datetime.fromtimestamp(model.converted_at).isoformat(" ", "minutes"),
            str(model.path),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))  # Text: names may look like rich markup
    return table if cached else Table("no converted models in the cache", box=None, pad_edge=False)
