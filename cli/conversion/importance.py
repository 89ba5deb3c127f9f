"""Command `thirteen importance`."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import run_bars, show_file
from . import inputs

app = typer.Typer()


@app.command(epilog=options.example("importance smollm2-135m --output importance.gguf"))
def importance(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Importance file to write.")],
    adapter: options.Adapter = None,
    calibration: inputs.Calibration = None,
    thoroughness: inputs.Thoroughness = "normal",
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the importance of weights.

    The file has activations, covariances and sensitivities. It is an importance matrix in llama.cpp's format:
    llama-quantize reads it, and convert reads llama.cpp's files.
    """
    from ...convert.source.checkpoint import open_checkpoint
    from ...files.output import check_target
    from ...models.adapter import resolve_sources
    from ...models.texts import calibration_texts
    from ...workflows.importance_cache import Calibration, measure_importance

    measured_on = Calibration(calibration or calibration_texts(), thoroughness)
    check_target(output, replace=replace)
    with run_bars(threads) as run:
        found = resolve_sources(base, adapter, run)
        check_target(output, found.base, *filter(None, (found.adapter, calibration)))
        sha256 = measure_importance(open_checkpoint(found.base), found.adapter, output, measured_on, run)
    show_file(output, sha256, as_json)
