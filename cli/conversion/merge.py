"""Command `thirteen merge`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import progress_bar, show_fields, stage_bars, warn
from .convert import adapter_text, counts_text, vocabulary_rows

app = typer.Typer()


@app.command(
    epilog=options.example(
        "merge llama-3.2-1b --adapter ./my-lora --out merged",
        "merge llama-3.2-1b --vocabulary english.json --out trimmed",
    )
)
def merge(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Catalogue name, hub id, or folder of safetensors (not a GGUF)."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty.")],
    adapter: options.Adapter = None,
    vocabulary: options.FixedVocabulary = None,
    vocabulary_texts: options.VocabularyTexts = None,
    shard_size: Annotated[str, typer.Option(help="Maximum size of a weight file.")] = "5GB",
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter, trim the vocabulary, write safetensors.

    The output is a checkpoint for vLLM, transformers and other loaders.
    """
    from ...convert.merge import merge_checkpoint
    from ...convert.provenance import source_ids
    from ...workflows.conversion_inputs import fetch_base_and_adapter

    if adapter is None and vocabulary is None:
        raise typer.BadParameter("merge: needs --adapter, --vocabulary, or both")
    shard_bytes = options.memory_size("--shard-size", shard_size)
    with stage_bars() as stage:
        base_path, adapter_path = fetch_base_and_adapter(base, adapter, revision, stage)
    with progress_bar("merge") as progress:
        merged = merge_checkpoint(
            base_path,
            adapter_path,
            out_dir,
            vocabulary=options.resolve_vocabulary(vocabulary, base_path, vocabulary_texts, None),
            ids=source_ids(base, adapter),
            shard_bytes=shard_bytes,
            progress=progress,
        )
    warn(merged.warnings)
    rows = {
        "output": merged.output,
        "files": ", ".join(merged.files),
        "weights": f"{merged.total_bytes:,} bytes; tensors: {counts_text(merged.types)}",
        "adapter": adapter_text(merged.adapter),
        **vocabulary_rows(merged.vocabulary),
    }
    show_fields(as_json, asdict(merged), rows)
