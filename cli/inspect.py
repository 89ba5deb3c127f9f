"""The command `thirteen inspect`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import facts_table, show_result
from .options import Json

app = typer.Typer()


@app.command(epilog="Example: thirteen inspect model.gguf --context 4096")
def inspect(
    file: Annotated[Path, typer.Argument(help="A GGUF file.")],
    profile: Annotated[
        str | None, typer.Option(help="Memory for this one only: laptop, server or phone.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Memory for so many tokens.")] = None,
    kv: Annotated[str | None, typer.Option(help="Memory with keys and values in f16 or q8_0.")] = None,
    as_json: Json = False,
) -> None:
    """Show the types, sizes and provenance of a GGUF file, and the memory that it will need."""
    from ..workflows.inspect_gguf import inspect_gguf, memory_profiles

    found = inspect_gguf(file, memory_profiles(profile, context, kv))

    def table() -> Table:
        rows = {
            "file": found.path,
            "size": f"{found.file_bytes:,} bytes, {found.bits_per_weight:.2f} bits a weight",
            "model": f"{found.name or 'unnamed'} ({found.architecture}), {found.weights:,} weights",
        }
        rows |= {
            f"type {name}": f"{share.tensors} tensors, {share.weights:,} weights, {share.nbytes:,} bytes"
            for name, share in found.types.items()
        }
        rows |= {f"memory, {name}": memory.text for name, memory in found.memory.items()}
        rows |= {f"{found.architecture}.{key}": str(value) for key, value in found.metadata.items()}
        rows |= {f"tokenizer.{key}": str(value) for key, value in found.tokenizer.items()}
        rows |= {f"thirteen.{key}": value for key, value in found.provenance.items()}
        return facts_table(rows)

    show_result(as_json, asdict(found), table)
