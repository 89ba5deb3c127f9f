"""The command `thirteen bench report`: all measurements on one page."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import RequestError
from ..console import facts_table, show_result, stage_bars
from ..options import (
    Json,
    LengthsOption,
    RoundsOption,
    Threads,
)
from .options import default_models, parse_numbers

app = typer.Typer()


@app.command("report", epilog="Example: thirteen bench report base.gguf adapted.gguf --out report")
def bench_report(
    base: Annotated[Path | None, typer.Argument(help="The unadapted GGUF.")] = None,
    adapted: Annotated[Path | None, typer.Argument(help="The adapted GGUF.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("report"),
    adapter: Annotated[Path | None, typer.Option(help="A run-time adapter for the adapted side.")] = None,
    latency: Annotated[Path | None, typer.Option(help="JSON of bench latency, instead of measuring.")] = None,
    size: Annotated[Path | None, typer.Option(help="JSON of bench size of the adapted file.")] = None,
    accuracy: Annotated[Path | None, typer.Option(help="JSON of bench accuracy.")] = None,
    fidelity: Annotated[Path | None, typer.Option(help="JSON of bench fidelity.")] = None,
    peers: Annotated[Path | None, typer.Option(help="JSON of bench peers.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Also ask both models: gsm8k, svamp, asdiv, gsm-symbolic, or a file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most questions of --data.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer to them.")] = 512,
    reference: Annotated[
        Path | None, typer.Option(help="Also measure fidelity: the adapted model in high precision.")
    ] = None,
    base_reference: Annotated[
        Path | None, typer.Option(help="With it, the unadapted one: for the adapter's effect.")
    ] = None,
    with_peers: Annotated[
        bool, typer.Option("--with-peers", help="Also run the file through other programs.")
    ] = False,
    llama_bench: Annotated[str | None, typer.Option(help="One of these; else the one on the path.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Another: the folder that the file was made of, for transformers.")
    ] = None,
    rounds: RoundsOption = 20,
    lengths: LengthsOption = "32,128,512,1024",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write one page of it all: speed, accuracy, size, memory, and what was published beside it.

    Without models and without JSON, the embedded default is measured, with its adapter and without.
    """
    from ...bench.peers.peers import PeerPrograms
    from ...bench.report.collect import ReportInputs, ReportRequest, collect_measurements
    from ...bench.report.report import check_report_folder, write_report

    files = ReportInputs(latency, size, accuracy, fidelity, peers)
    if base_reference and not reference:
        raise RequestError("bench report: --base-reference goes with --reference")
    if (llama_bench or checkpoint) and not with_peers:
        raise RequestError("bench report: --llama-bench and --checkpoint go with --with-peers")
    if (base is None) != (adapted is None):
        raise RequestError("bench report: give both models, base and adapted, or none")
    check_report_folder(out_dir)
    models = (base, adapted) if base and adapted else None
    if models is None and files == ReportInputs():
        models = default_models()
    request = ReportRequest(
        models=models,
        adapter=adapter,
        rounds=rounds,
        lengths=parse_numbers("--lengths", lengths),
        threads=threads,
        data=data,
        limit=limit,
        max_tokens=max_tokens,
        reference=reference,
        base_reference=base_reference,
        programs=PeerPrograms(llama_bench, checkpoint=checkpoint) if with_peers else None,
    )
    with stage_bars() as stage:
        measured = collect_measurements(files, request, stage)
    path = write_report(measured, out_dir)
    show_result(as_json, {"report": str(path)}, lambda: facts_table({"report": str(path)}))
