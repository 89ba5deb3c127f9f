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
    from ..convert.write import FileLayout
    from ..files.gguf.header import Header
    from ..models.catalogue import Catalogue, CatalogueBase
    from ..models.resolve import CachedModel


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
    from ..models.resolve import remove_model

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
    from ..convert.write import FileLayout
    from ..files.gguf.header import read_header

    header = read_header(options.resolve_model(model).model)
    layout = FileLayout.of(header)
    facts = model_facts(header, layout, context)
    architecture = facts["architecture"]
    rows = {
        "file": header.path,
        "model": f"{facts['name'] or 'unnamed'} ({architecture}), {facts['weights']:,} weights",
        **layout_rows(layout),
    }
    for name, memory in facts["memory"].items():
        rows[f"memory, {name}"] = f"{memory['parts'].text} at {memory['context']} tokens in {memory['kv']}"
    for prefix, key in ((architecture, "metadata"), ("tokenizer", "tokenizer"), ("thirteen", "provenance")):
        rows |= {f"{prefix}.{name}": value for name, value in facts[key].items()}
    show(as_json, facts, rows)


def model_facts(header: "Header", layout: "FileLayout", context: int | None = None) -> dict[str, Any]:
    """Summarize a GGUF: its sizes, types and provenance, and the memory that it takes."""
    architecture, provenance = header.metadata.get("general.architecture"), _scalars(header, "thirteen.")
    return {
        "path": header.path,
        "architecture": architecture,
        "name": header.metadata.get("general.name"),
        "metadata": _scalars(header, f"{architecture}."),
        "tokenizer": _scalars(header, "tokenizer.ggml."),
        "provenance": {key: str(value) for key, value in provenance.items()},
        "memory": _memory(header, context),
        **{name: getattr(layout, name) for name in ("file_bytes", "weights", "bits_per_weight", "types")},
    }


def _scalars(header: "Header", prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): field.value
        for key, field in header.fields.items()
        if key.startswith(prefix) and field.element is None
    }


def _memory(header: "Header", context: int | None) -> dict[str, dict[str, Any]]:
    """Estimated memory by profile, with its own context or the given one; empty if it cannot run here."""
    from ..errors import FileError
    from ..runtime.engine_options import PROFILES, EngineOptions
    from ..runtime.llama.model import check_model_header
    from ..runtime.llama.settings import LLAMA
    from ..runtime.memory import estimate_memory

    found = {}
    try:
        check_model_header(header)
        for profile in PROFILES:
            settings = EngineOptions(profile=profile, context=context, library=LLAMA).settings()
            parts = estimate_memory(header, settings)
            sizes = {"context": settings.context, "kv": settings.kv, "total_bytes": parts.total_bytes}
            found[profile] = {**sizes, "parts": parts}
    except FileError:
        return {}
    return found


def _list_models(as_json: bool) -> None:
    from ..errors import OutputError
    from ..models.catalogue import catalogue
    from ..models.resolve import cached_models
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
