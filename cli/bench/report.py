"""Command `thirteen bench report`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import run_bars, show_fields

app = typer.Typer()


@app.command("report", epilog=options.example("bench report base.gguf adapted.gguf --out report"))
def bench_report(
    ctx: typer.Context,
    base: Annotated[str | None, typer.Argument(metavar="BASE", help="Unadapted model.")] = None,
    adapted: Annotated[str | None, typer.Argument(metavar="ADAPTED", help="Adapted model.")] = None,
    output: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("report"),
    replace: options.Force = False,
    adapter: options.Lora = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of a run.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size, instead of a run.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    peers: Annotated[Path | None, typer.Option(help="JSON of bench peers.")] = None,
    efforts: Annotated[
        list[Path] | None, typer.Option("--effort", help="JSON of bench accuracy with an effort; repeatable.")
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Write a report of all measurements.

    Latency and size of BASE and ADAPTED are measured, the others read. Without models and JSON files, the
    embedded model is measured with and without its adapter. With --force, the raw JSON and the plot of an
    earlier report that are not given again are deleted.
    """
    from ...bench.report.report import PAGE, ReportRequest, collect_measurements, write_report
    from ...bench.report.sections import REPORTS
    from ...files.output import check_folder, check_target
    from ...workflows.default_model import NAME

    request = ReportRequest(**options.matching_options(ctx, ReportRequest))
    files = {name: path for name in REPORTS if (path := ctx.params[name])}
    request = dataclasses.replace(request, files=files, efforts=tuple(efforts or ()))
    request.check()
    check_folder(output)
    if (page := output / PAGE).exists():
        check_target(page, replace=replace)
    if base is None and not (request.files or request.efforts):
        request = dataclasses.replace(
            request, base=options.resolve_model(NAME).model, adapted=options.resolve_model(None).model
        )
    elif base and adapted:
        probed = options.probed_model(adapted, adapter, threads=threads)
        base_path = options.probed_model(base, threads=threads).model
        request = dataclasses.replace(request, base=base_path, adapted=probed.model, adapter=probed.adapter)
    with run_bars() as run:
        found = collect_measurements(request, run.stage)
    page = write_report(found, output)
    show_fields(as_json, {"report": str(page)})
