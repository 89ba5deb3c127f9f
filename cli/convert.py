"""The commands that make a model file: `convert`, `plan` and `importance`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import facts_table, json_text, progress_bar, show_file, show_result, stage_bars, warn
from .options import (
    AdapterOption,
    BaseArgument,
    CalibrationOption,
    CostsOption,
    ImportanceOption,
    Json,
    Output,
    PreferOption,
    Revision,
    SizeOption,
    TargetOption,
    Threads,
    TogetherOption,
    memory_size,
    shown_name,
    size_target,
)

if TYPE_CHECKING:
    from ..bench.fidelity.fidelity import FidelityReport
    from ..convert.pipeline import ConversionReport
    from ..workflows.fidelity_check import FidelityCheck

app = typer.Typer()


@app.command(
    epilog="Example: thirteen convert llama-3.2-1b --adapter ./my-lora --type Q4_K --output my-model.gguf"
)
def convert(
    base: BaseArgument,
    output: Output,
    adapter: AdapterOption = None,
    type_: Annotated[
        str | None, typer.Option("--type", help="Any ggml type: Q4_K (the default), Q8_0, IQ4_NL, F16, …")
    ] = None,
    size: SizeOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "balanced",
    costs: CostsOption = None,
    together: TogetherOption = False,
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Measure what the file kept, beside F16, over 1,024 positions of held-out text; "
            "by default where there is an adapter.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this JSON file.")] = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into a base, write one quantized GGUF of a type or a size, and tell what it kept."""
    from ..convert.merged_view import SourceIds
    from ..convert.pipeline import DEFAULT_TYPE
    from ..convert.pipeline import convert as run
    from ..files.output import check_target

    if report and report.absolute() == output.absolute():
        raise typer.BadParameter(f"--report and --output are both {output}")
    if type_ and size:
        raise typer.BadParameter(f"--type {type_} and --size {size}: give one of them")
    file_size = size_target(size, target, prefer, costs, together=together) if size else None
    base_path, adapter_path = _fetch(base, adapter, revision)
    for file in (output, report):
        if file:
            check_target(file, base_path, *([adapter_path] if adapter_path else []))
    if importance is None and (size or calibration):
        importance = _importance(base_path, adapter_path, calibration, threads)
    with progress_bar("convert") as progress:
        done = run(
            base_path,
            output,
            quantization=file_size or type_ or DEFAULT_TYPE,
            importance=importance,
            adapter=adapter_path,
            ids=SourceIds(shown_name(base), shown_name(adapter or "")),
            threads=threads,
            progress=progress,
        )
    wanted = adapter_path is not None if fidelity is None else fidelity
    proof = _prove(done, base_path, adapter_path, importance, threads) if wanted else None
    _show_conversion(done, proof, report, as_json)


@app.command(epilog="Example: thirteen merge llama-3.2-1b --adapter ./my-lora --out merged")
def merge(
    base: BaseArgument,
    adapter: Annotated[str, typer.Option(help="A PEFT folder, a hub id, a catalogue name, or a code.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The folder to write; new, or empty.")],
    shard_size: Annotated[str, typer.Option(help="The most bytes of a file of weights.")] = "5GB",
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Merge an adapter into a base and write it as an ordinary checkpoint, which vLLM or anything loads."""
    from ..convert.merge import merge_checkpoint as run
    from ..convert.merged_view import SourceIds

    most = memory_size("--shard-size", shard_size)
    base_path, adapter_path = _fetch(base, adapter, revision)
    assert adapter_path is not None, "an adapter was given"
    with progress_bar("merge") as progress:
        done = run(
            base_path,
            adapter_path,
            out_dir,
            ids=SourceIds(shown_name(base), shown_name(adapter)),
            shard_bytes=most,
            progress=progress,
        )
    warn(done.warnings)
    counted = ", ".join(f"{count} {name}" for name, count in done.types.items())
    rows = {
        "output": done.output,
        "files": ", ".join(done.files),
        "weights": f"{done.total_bytes:,} bytes; tensors: {counted}",
        "adapter": f"{done.adapter.id} ({done.adapter.kind}), merged by {done.adapter.merged_by}",
    }
    show_result(as_json, asdict(done), lambda: facts_table(rows))


@app.command(epilog="Example: thirteen plan smollm2-135m --size 4.5bpw --prefer quality")
def plan(
    base: BaseArgument,
    size: Annotated[str, typer.Option(help="As in convert.")],
    adapter: AdapterOption = None,
    importance: ImportanceOption = None,
    calibration: CalibrationOption = None,
    target: TargetOption = None,
    prefer: PreferOption = "balanced",
    costs: CostsOption = None,
    together: TogetherOption = False,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show what a file of a size would be made of and what it is predicted to come to, without writing it."""
    from ..convert.pipeline import plan_conversion

    file_size = size_target(size, target, prefer, costs, together=together)
    base_path, adapter_path = _fetch(base, adapter, revision)
    if importance is None:
        importance = _importance(base_path, adapter_path, calibration, threads)
    with progress_bar("plan") as progress:
        done = plan_conversion(
            base_path, file_size, importance, adapter=adapter_path, threads=threads, progress=progress
        )
    warn(done.warnings)
    result = asdict(done)
    for tensor, of in zip(result["tensors"], done.tensors, strict=True):
        tensor["type"] = of.type.name
    rows = {p.target: f"{p.type.name}, {p.nbytes:,} bytes" for p in done.tensors if len(p.shape) > 1}
    counted = ", ".join(f"{count} {name}" for name, count in done.types.items())
    show_result(
        as_json, result, lambda: facts_table(rows | {"tensors": counted} | _predicted(done.prediction))
    )


@app.command(epilog="Example: thirteen importance smollm2-135m --output importance.gguf")
def importance(
    base: BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The importance file to write.")],
    adapter: AdapterOption = None,
    calibration: CalibrationOption = None,
    revision: Revision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure what matters in a model: activations, their covariances, and each matrix' sensitivity.

    The file is in llama.cpp's importance-matrix format: llama-quantize takes it, and convert takes its.
    """
    from ..files.output import check_target
    from ..workflows.importance_cache import measure_importance

    base_path, adapter_path = _fetch(base, adapter, revision)
    check_target(output, base_path, *(path for path in (adapter_path, calibration) if path))
    with stage_bars() as stage:
        sha256 = measure_importance(
            base_path, adapter_path, output, calibration=calibration, threads=threads, stage=stage
        )
    show_file(output, sha256, as_json)


def _fetch(base: str, adapter: str | None, revision: str | None) -> tuple[Path, Path | None]:
    from ..models.fetch import fetch
    from ..workflows.adapter_resolver import resolve_adapter_folder

    found = fetch(base, revision=revision, kind="base")
    if not adapter:
        return found, None
    with progress_bar("basis") as progress:
        return found, resolve_adapter_folder(adapter, base, progress=progress)


def _importance(base: Path, adapter: Path | None, calibration: Path | None, threads: int | None) -> Path:
    from ..workflows.importance_cache import cached_importance

    with stage_bars() as stage:
        return cached_importance(base, adapter, calibration=calibration, threads=threads, stage=stage)


def _prove(
    done: "ConversionReport", base: Path, adapter: Path | None, importance: Path | None, threads: int | None
) -> "FidelityCheck":
    from ..workflows.fidelity_check import check_fidelity

    with stage_bars() as stage:
        return check_fidelity(
            done, base, adapter=adapter, importance=importance, threads=threads, stage=stage
        )


def _show_conversion(
    done: "ConversionReport", proof: "FidelityCheck | None", report: Path | None, as_json: bool
) -> None:
    """Print what was made and what it kept, and write it to the file `report`, if that is given."""
    measured = proof.fidelity if proof else None
    warnings = [*done.warnings, *(proof.warnings if proof else ())]
    result = asdict(done) | {"warnings": warnings, "fidelity": asdict(measured) if measured else None}
    if report:
        report.write_text(json_text(result, indent=2) + "\n", "utf-8")
    warn(warnings)
    show_result(as_json, result, lambda: facts_table({
        "file": done.output,
        "size": f"{done.file_bytes:,} bytes, {done.bits_per_weight:.2f} bits a weight",
        "tensors": ", ".join(f"{count} {name}" for name, count in done.types.items()),
        "base": done.base.id,
        "adapter": _adapter_line(done.adapter) if done.adapter else "none",
        **(_predicted(done.prediction) if done.prediction else {}),
        "sha256": done.sha256,
        "time": f"{done.seconds:.1f} s",
        **(_kept(measured) if measured else {}),
    }))  # fmt: skip


def _kept(measured: "FidelityReport") -> dict[str, str]:
    from ..bench.fidelity.fidelity import fidelity_summary

    return fidelity_summary(measured)


def _predicted(prediction: Any) -> dict[str, str]:
    divergence = prediction.divergence
    return {
        "predicted KL": "not in nats" if divergence is None else f"{divergence:.4f} nats",
        "predicted decode": f"{prediction.decode_speed:.2f} of uniform Q4_K's speed ({prediction.target})",
        "planned size": f"{prediction.file_bytes:,} of {prediction.budget_bytes:,} bytes",
    }


def _adapter_line(adapter: Any) -> str:
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"
