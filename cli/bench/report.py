"""Command `thirteen bench report`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import show_fields, stage_bars
from ..help_sections import ADVANCED, SectionedCommand

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
        int | None,
        typer.Option(min=1, help="Maximum tokens of an answer. Default: 512.", rich_help_panel=ADVANCED),
    ] = None,
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
    from ...bench.report.report import ReportRequest, run_report

    request = ReportRequest(**options.matching_options(ctx, ReportRequest))
    request.check()
    if request.base is None and not request.files:
        request = replace(request, base=options.default_base(), adapted=options.resolve_model(None, {})[0])
    for path in filter(None, (request.base, request.reference)):
        options.probe_files(path)
    if request.adapted:
        options.probe_files(request.adapted, adapter)
    with stage_bars() as stage:
        page = run_report(request, out_dir, stage)
    show_fields(as_json, {"report": str(page)})
