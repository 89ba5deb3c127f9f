"""Command `thirteen plan`."""

from typing import Annotated

import typer

from .. import options
from ..console import run_bars, show_fields, warn
from . import inputs
from .convert import note_losses
from .layout import layout_facts, layout_rows

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

    request = ConversionRequest(**options.matching_options(ctx, ConversionRequest))
    with run_bars(threads) as run:
        layout, losses, warnings = run_plan(request, run)
    note_losses(losses)
    warn(warnings)
    tensors = [{**vars(tensor), "type": tensor.type.name} for tensor in layout.tensors]
    matrices = (tensor for tensor in layout.tensors if len(tensor.shape) > 1)
    rows = {tensor.target: f"{tensor.type.name}, {tensor.nbytes:,} bytes" for tensor in matrices}
    facts = layout_facts(layout) | {"tensors": tensors, "warnings": warnings}
    show_fields(as_json, facts, rows | layout_rows(layout))
