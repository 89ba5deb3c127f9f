"""Command `thirteen bench report`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import show_fields, stage_bars
from ..help_sections import ADVANCED

app = typer.Typer()


@app.command("report", epilog=options.example("bench report base.gguf adapted.gguf --out report"))
def bench_report(
    ctx: typer.Context,
    base: Annotated[str | None, typer.Argument(metavar="BASE", help="Unadapted model.")] = None,
    adapted: Annotated[str | None, typer.Argument(metavar="ADAPTED", help="Adapted model.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("report"),
    adapter: options.Lora = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of a run.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size, instead of a run.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    peers: Annotated[Path | None, typer.Option(help="JSON of bench peers.")] = None,
    efforts: Annotated[
        list[Path] | None,
        typer.Option(
            "--effort", help="JSON of bench accuracy with an effort; repeatable.", rich_help_panel=ADVANCED
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Also measure accuracy, as in bench accuracy --data.")
    ] = None,
    limit: options.Limit = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum tokens of an answer. Default: 512.", rich_help_panel=ADVANCED),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Also measure fidelity to this adapted model in high precision.")
    ] = None,
    with_peers: Annotated[
        bool, typer.Option("--with-peers", help="Also measure other programs.", rich_help_panel=ADVANCED)
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Write a report of all measurements.

    Without models and JSON files, the embedded model is measured with and without its adapter.
    """
    from ...bench.report.report import ReportRequest, run_report

    request = ReportRequest(**options.matching_options(ctx, ReportRequest))
    request.check()
    request = replace(request, efforts=tuple(efforts or ()))
    if base is None and not (request.files or request.efforts):
        request = replace(
            request, base=options.resolve_model("embedded", {})[0], adapted=options.resolve_model(None, {})[0]
        )
    elif base and adapted:
        path, lora = options.probed_model(adapted, adapter)
        request = replace(request, base=options.probed_model(base)[0], adapted=path, adapter=lora)
    if reference:
        request = replace(request, reference=options.probed_model(reference)[0])
    with stage_bars() as stage:
        page = run_report(request, out_dir, stage)
    show_fields(as_json, {"report": str(page)})
