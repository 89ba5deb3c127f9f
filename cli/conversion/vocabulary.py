"""Command `thirteen vocabulary`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import run_bars, show_fields

app = typer.Typer()


@app.command(epilog=options.example("vocabulary llama-3.2-1b --output vocabulary.json"))
def vocabulary(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="List of tokens to write, as JSON.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts of your own, besides the built-in ones: JSON lines with text, or question and answer."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Number of tokens that stay.")] = 49152,
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Choose which tokens of a base a smaller file keeps.

    The list is for convert and plan. `plan --vocabulary auto` compares what files of different sizes of the
    vocabulary lose.
    """
    from ...convert.source.checkpoint import open_checkpoint
    from ...files.hashing import file_sha256
    from ...files.output import check_target
    from ...models.base import resolve_base
    from ...workflows.vocabulary.vocabulary_choice import choose_vocabulary

    check_target(output, replace=replace)
    path = resolve_base(base).path
    check_target(output, path, *filter(None, (texts,)))
    with run_bars(threads) as run:
        kept = choose_vocabulary(open_checkpoint(path), size, texts, run)
    kept.save(output)
    sha256 = file_sha256(output)
    facts = {"output": str(output), "sha256": sha256, "tokens": len(kept.tokens), "of": kept.of}
    rows = {"list": str(output), "tokens": f"{len(kept.tokens):,} of {kept.of:,}", "sha256": sha256}
    show_fields(as_json, facts, rows)
