"""Command `thirteen bench report`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ...errors import RequestError
from .. import options
from ..console import show_fields, stage_bars
from ..help_sections import ADVANCED, SectionedCommand

# Options that shape a measurement, by the option that reads it from a file instead.
_RUN_BY = {"accuracy": ("data", "limit", "max_tokens"), "fidelity": ("reference",), "peers": ("with_peers",)}

app = typer.Typer()


@app.command(
    "report", cls=SectionedCommand, epilog=options.example("bench report base.gguf adapted.gguf --out report")
)
def bench_report(
    ctx: typer.Context,
    base: Annotated[Path | None, typer.Argument(metavar="BASE", help="Unadapted GGUF.")] = None,
    adapted: Annotated[Path | None, typer.Argument(metavar="ADAPTED", help="Adapted GGUF.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("report"),
    adapter: options.Lora = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of a run.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size, instead of a run.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    peers: Annotated[Path | None, typer.Option(help="JSON of bench peers.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Also measure accuracy, as in bench accuracy --data.")
    ] = None,
    limit: options.Limit = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum tokens of an answer.", rich_help_panel=ADVANCED)
    ] = 512,
    reference: Annotated[
        Path | None, typer.Option(help="Also measure fidelity to this adapted model in high precision.")
    ] = None,
    with_peers: Annotated[
        bool, typer.Option("--with-peers", help="Also measure other programs.", rich_help_panel=ADVANCED)
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Write a report of all measurements.

    Published figures are next to those measured. Without models and JSON files, the embedded model is
    measured with and without its adapter.
    """
    from ...bench.report.collect import ReportInputs, ReportRequest, collect_measurements
    from ...bench.report.report import missing_matplotlib, write_report
    from ...files.output import check_folder

    for measurement, names in _RUN_BY.items():
        if ctx.params[measurement]:
            options.refuse_given(ctx, names, f"--{measurement} is given, so it is not measured")
    if not data:
        options.refuse_given(ctx, ("limit", "max_tokens"), "requires --data")
    inputs = ReportInputs(latency, size, accuracy, fidelity, peers)
    if (base is None) != (adapted is None):
        raise RequestError("bench report: give both BASE and ADAPTED, or neither")
    check_folder(out_dir)
    if lacking := missing_matplotlib():
        print(f"no HTML page, only Markdown and JSON: {lacking}", file=sys.stderr)
    models = (base, adapted) if base and adapted else None
    if models is None and inputs == ReportInputs():
        models = options.default_base(), options.resolve_model(None, {})[0]
    if models is None:
        options.refuse_given(ctx, ("adapter", "threads"), "requires BASE and ADAPTED, beside the JSON")
    for path in filter(None, (*(models or ()), reference)):
        options.probe_files(path)
    if models and adapter:
        options.probe_files(models[1], adapter)
    # Options match the fields of ReportRequest by name.
    given = options.matching_options(ctx, ReportRequest)
    with stage_bars() as stage:
        request = ReportRequest(models=models, **given)
        measurements = collect_measurements(inputs, request, stage)
    show_fields(as_json, {"report": str(write_report(measurements, out_dir))})
