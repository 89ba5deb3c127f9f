"""Command `thirteen inspect`."""

from typing import Annotated

import typer

from . import options
from .console import show_fields
from .conversion.layout import layout_rows

app = typer.Typer()


@app.command(epilog=options.example("inspect model.gguf --context 4096"))
def inspect(
    model: options.ModelArgument,
    profile: Annotated[
        str | None,
        typer.Option(help="Profile for the memory estimate: laptop, server or phone. Default: all."),
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Context length for the memory estimate.")
    ] = None,
    kv: Annotated[
        str | None, typer.Option(help="KV cache type for the memory estimate: f16, bf16 or q8_0.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the types, size, provenance and memory of a model.

    The memory is an estimate from the header; nothing is loaded.
    """
    from ..workflows.inspect_gguf import inspect_gguf, memory_profiles

    profiles = memory_profiles(profile, context, kv)
    path = options.resolve_model(model).model
    found = inspect_gguf(path, profiles)
    layout, facts = found.layout, {key: value for key, value in vars(found).items() if key != "layout"}
    for name in ("file_bytes", "weights", "bits_per_weight", "types"):
        facts[name] = getattr(layout, name)
    rows = {
        "file": str(found.path),
        "model": f"{found.name or 'unnamed'} ({found.architecture}), {layout.weights:,} weights",
        **layout_rows(layout),
    }
    rows |= {f"memory, {name}": memory.text for name, memory in found.memory.items()}
    rows |= {f"{found.architecture}.{key}": str(value) for key, value in found.metadata.items()}
    rows |= {f"tokenizer.{key}": str(value) for key, value in found.tokenizer.items()}
    rows |= {f"thirteen.{key}": value for key, value in found.provenance.items()}
    show_fields(as_json, facts, rows)
