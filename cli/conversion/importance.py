"""Command `thirteen importance`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import show_file, stage_bars

app = typer.Typer()


@app.command(
    epilog=options.example(
        "importance smollm2-135m --output importance.gguf", "importance llama-3.2-1b --fetch"
    )
)
def importance(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Importance file to write; not with --fetch.")
    ] = None,
    adapter: options.Adapter = None,
    calibration: options.Calibration = None,
    effort: options.Effort = "normal",
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help="Download the published file of a catalogue base to the cache, for convert --size.",
        ),
    ] = False,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the importance of weights, or fetch it.

    The file has activations, covariances and sensitivities. It is an importance matrix in llama.cpp's format:
    llama-quantize reads it, and convert reads llama.cpp's files.
    """
    from ...files.output import check_target
    from ...workflows.conversion_inputs import fetch_base_and_adapter
    from ...workflows.importance_cache import measure_importance

    if fetch:
        others = ("output", "adapter", "calibration", "effort", "revision", "threads")
        options.refuse_given(ctx, others, "--fetch takes no other option than --json")
        _fetch_importance(base, as_json)
        return
    if output is None:
        raise typer.BadParameter("--output is missing; only --fetch needs none")
    with stage_bars() as stage:
        base_path, adapter_path = fetch_base_and_adapter(base, adapter, revision, stage)
        check_target(output, base_path, *filter(None, (adapter_path, calibration)))
        sha256 = measure_importance(
            base_path,
            adapter_path,
            output,
            calibration=calibration,
            effort=effort,
            threads=threads,
            stage=stage,
        )
    show_file(output, sha256, as_json)


def _fetch_importance(base: str, as_json: bool) -> None:
    from ...files.hashing import file_sha256
    from ...workflows.importance_cache import fetch_importance

    path = fetch_importance(base)
    show_file(path, file_sha256(path), as_json)
