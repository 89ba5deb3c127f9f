"""Command `thirteen merge`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import run_bars, show_fields, warn
from .convert import adapter_text

app = typer.Typer()


@app.command(epilog=options.example("merge llama-3.2-1b --adapter ./my-lora --out merged"))
def merge(
    ctx: typer.Context,
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Catalogue name, hub id, or folder of safetensors (not a GGUF)."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty.")],
    adapter: Annotated[str, typer.Option(help=options.ADAPTER)],
    as_json: options.Json = False,
) -> None:
    """Merge an adapter and write safetensors.

    The output is a checkpoint for vLLM, transformers and other loaders.
    """
    from ...workflows.conversion import ConversionRequest, run_merge

    request = ConversionRequest(**options.matching_options(ctx, ConversionRequest))
    with run_bars() as run:
        merged = run_merge(request, out_dir, run)
    warn(merged.warnings)
    types = ", ".join(f"{count} {name}" for name, count in merged.types.items())
    rows = {
        "output": merged.output,
        "weights": f"{merged.total_bytes:,} bytes; tensors: {types}",
        "adapter": adapter_text(merged.adapter),
    }
    show_fields(as_json, asdict(merged), rows)
