"""Command `thirteen plan`."""

from dataclasses import asdict
from typing import Annotated

import typer

from .. import options
from ..console import show_fields, stage_bars, warn
from . import inputs
from .convert import counts_text, note_losses, prediction_rows

app = typer.Typer()


@app.command(epilog=options.example("plan smollm2-135m --size 4.5bpw --prefer quality"))
def plan(
    ctx: typer.Context,
    base: options.BaseArgument,
    size: Annotated[str, typer.Option(help="Maximum file size: 600MB, 572MiB or 3.9bpw.")],
    adapter: options.Adapter = None,
    vocabulary: inputs.Vocabulary = None,
    vocabulary_texts: inputs.VocabularyTexts = None,
    importance: inputs.Importance = None,
    calibration: inputs.Calibration = None,
    thoroughness: inputs.ConversionThoroughness = None,
    target: inputs.Target = None,
    prefer: inputs.Prefer = None,
    costs: inputs.Costs = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Plan a file of a given size, without writing it.

    The plan has the type of each tensor and a prediction of quality and speed.
    """
    from ...workflows.conversion import ConversionRequest, run_plan

    with stage_bars() as stage:
        found, losses = run_plan(ConversionRequest(**options.matching_options(ctx, ConversionRequest)), stage)
    note_losses(losses)
    warn(found.warnings)
    facts = asdict(found)
    for fact, tensor in zip(facts["tensors"], found.tensors, strict=True):
        fact["type"] = tensor.type.name
    matrices = (tensor for tensor in found.tensors if len(tensor.shape) > 1)
    rows = {tensor.target: f"{tensor.type.name}, {tensor.nbytes:,} bytes" for tensor in matrices}
    rows |= {"tensors": counts_text(found.types)} | prediction_rows(found.prediction)
    show_fields(as_json, facts, rows)
