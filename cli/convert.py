"""Commands that write a converted model, or prepare for it: `convert`, `merge`, `plan`, `importance`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .console import json_text, note, progress_bar, show_fields, show_file, stage_bars, warn

if TYPE_CHECKING:
    from ..convert.pipeline import ConversionReport
    from ..convert.vocabulary.vocabulary_list import VocabularyList
    from ..workflows.fidelity_check import FidelityCheck
    from ..workflows.refine import RefineReport

# Options of a planned size, and of an importance that is measured.
_PLANNING = ("target", "prefer", "costs", "together", "workload")
_MEASURING = ("effort", "calibration")
_NOT_MEASURED = "--importance is given, so none is measured"

app = typer.Typer()


@app.command(
    epilog=options.example(
        "convert llama-3.2-1b --adapter ./my-lora --type Q4_K --output my-model.gguf",
        "convert llama-3.2-1b --adapter ./my-lora --size 600MB --output my-model.gguf",
        "convert llama-3.2-1b --vocabulary 49152 --size 600MB --output my-model.gguf",
        "convert smollm2-135m --size 84MB --refine 30 --output my-model.gguf",
    )
)
def convert(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: options.Output,
    adapter: options.Adapter = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="ggml type: Q4_K (default), Q8_0, IQ4_NL, F16, …; same: as in the base."),
    ] = None,
    size: options.Size = None,
    vocabulary: options.Vocabulary = None,
    vocabulary_texts: options.VocabularyTexts = None,
    importance: Annotated[
        Path | None,
        typer.Option(
            help="Importance file. Default where it is needed, and with --calibration: measured once, then "
            "cached."
        ),
    ] = None,
    calibration: options.CalibrationAndTuning = None,
    effort: options.Effort = "normal",
    target: options.Target = None,
    prefer: options.Prefer = "balanced",
    costs: options.Costs = None,
    together: options.Together = False,
    workload: options.AnswerWorkload = None,
    search_scales: options.SearchScales = False,
    refine: options.Refine = None,
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Compare with F16 over 1,024 positions of held-out text. Default: only with an adapter.",
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this JSON file.")] = None,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter into a base and write a quantized GGUF.

    The GGUF has one type, or for a given size a planned type for each tensor.
    """
    from ..convert import pipeline
    from ..files.output import check_target

    if report and report.absolute() == output.absolute():
        raise typer.BadParameter(f"--report and --output are both {output}")
    if type_ and size:
        raise typer.BadParameter(f"--type {type_} and --size {size} exclude each other")
    if not size:
        options.refuse_given(ctx, _PLANNING, "requires --size")
        if vocabulary == "auto":
            raise typer.BadParameter("--vocabulary auto requires --size")
    if importance:
        options.refuse_given(ctx, _MEASURING if refine is None else ("effort",), _NOT_MEASURED)
    elif not (size or calibration or search_scales):
        options.refuse_given(ctx, ("effort",), "requires --size, --calibration or --search-scales")
    planned = (
        options.size_target(size, target, prefer, costs, together=together, workload=workload)
        if size
        else None
    )
    base_path, adapter_path = options.fetch_base_and_adapter(base, adapter, revision)
    for file in filter(None, (output, report)):
        read = (adapter_path, vocabulary_texts, importance, calibration, costs)
        sources = (*read, Path(vocabulary or base_path))
        check_target(file, base_path, *filter(None, sources))
    if importance is None and (size or calibration or search_scales):
        importance = _cached_importance(base_path, adapter_path, calibration, effort, threads)
    kept = _vocabulary(
        vocabulary, base_path, vocabulary_texts, planned, importance, adapter_path, threads=threads
    )
    with progress_bar("convert") as progress:
        conversion = pipeline.convert(
            base_path,
            output,
            quantization=planned or type_ or pipeline.DEFAULT_TYPE,
            importance=importance,
            adapter=adapter_path,
            vocabulary=kept,
            search_scales=search_scales,
            refine=refine is not None,
            ids=options.source_ids(base, adapter),
            threads=threads,
            progress=progress,
        )
    refined = None
    if refine is not None:
        from ..workflows.refine import refine_file

        with progress_bar("refine") as progress:
            refined = refine_file(
                output,
                base_path,
                refine,
                adapter=adapter_path,
                vocabulary=kept,
                calibration=calibration,
                threads=threads,
                progress=progress,
            )
        conversion = replace(conversion, sha256=refined.sha256)
    measured = adapter_path is not None if fidelity is None else fidelity
    check = None
    if measured:
        from ..workflows.fidelity_check import check_fidelity

        with stage_bars() as stage:
            check = check_fidelity(
                conversion,
                base_path,
                adapter=adapter_path,
                vocabulary=kept,
                importance=importance,
                threads=threads,
                stage=stage,
            )
    _show_conversion(conversion, refined, check, report, as_json)


@app.command(
    epilog=options.example(
        "merge llama-3.2-1b --adapter ./my-lora --out merged",
        "merge llama-3.2-1b --vocabulary english.json --out trimmed",
    )
)
def merge(
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Catalogue name, hub id, or folder of safetensors (not a GGUF)."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty.")],
    adapter: options.Adapter = None,
    vocabulary: options.FixedVocabulary = None,
    vocabulary_texts: options.VocabularyTexts = None,
    shard_size: Annotated[str, typer.Option(help="Maximum size of a weight file.")] = "5GB",
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter, trim the vocabulary, write safetensors.

    The output is a checkpoint for vLLM, transformers and other loaders.
    """
    from ..convert.merge import merge_checkpoint

    if adapter is None and vocabulary is None:
        raise typer.BadParameter("merge: needs --adapter, --vocabulary, or both")
    shard_bytes = options.memory_size("--shard-size", shard_size)
    base_path, adapter_path = options.fetch_base_and_adapter(base, adapter, revision)
    with progress_bar("merge") as progress:
        merged = merge_checkpoint(
            base_path,
            adapter_path,
            out_dir,
            vocabulary=options.resolve_vocabulary(vocabulary, base_path, vocabulary_texts, None),
            ids=options.source_ids(base, adapter),
            shard_bytes=shard_bytes,
            progress=progress,
        )
    warn(merged.warnings)
    rows = {
        "output": merged.output,
        "files": ", ".join(merged.files),
        "weights": f"{merged.total_bytes:,} bytes; tensors: {_counts(merged.types)}",
        "adapter": _adapter_text(merged.adapter) if merged.adapter else "none",
        **_vocabulary_rows(merged.vocabulary),
    }
    show_fields(as_json, asdict(merged), rows)


@app.command(epilog=options.example("plan smollm2-135m --size 4.5bpw --prefer quality"))
def plan(
    ctx: typer.Context,
    base: options.BaseArgument,
    size: Annotated[str, typer.Option(help="Maximum file size: 600MB, 572MiB or 3.9bpw.")],
    vocabulary: options.Vocabulary = None,
    vocabulary_texts: options.VocabularyTexts = None,
    adapter: options.Adapter = None,
    importance: options.Importance = None,
    calibration: options.Calibration = None,
    effort: options.Effort = "normal",
    target: options.Target = None,
    prefer: options.Prefer = "balanced",
    costs: options.Costs = None,
    together: options.Together = False,
    workload: options.AnswerWorkload = None,
    revision: options.Revision = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Plan a file of a given size, without writing it.

    The plan has the type of each tensor and a prediction of quality and speed.
    """
    from ..convert.pipeline import plan_conversion

    planned = options.size_target(size, target, prefer, costs, together=together, workload=workload)
    if importance:
        options.refuse_given(ctx, _MEASURING, _NOT_MEASURED)
    base_path, adapter_path = options.fetch_base_and_adapter(base, adapter, revision)
    if importance is None:
        importance = _cached_importance(base_path, adapter_path, calibration, effort, threads)
    kept = _vocabulary(
        vocabulary, base_path, vocabulary_texts, planned, importance, adapter_path, threads=threads
    )
    with progress_bar("plan") as progress:
        result = plan_conversion(
            base_path,
            planned,
            importance,
            adapter=adapter_path,
            vocabulary=kept,
            ids=options.source_ids(base, adapter),
            threads=threads,
            progress=progress,
        )
    warn(result.warnings)
    facts = asdict(result)
    for fact, tensor in zip(facts["tensors"], result.tensors, strict=True):
        fact["type"] = tensor.type.name
    matrices = (tensor for tensor in result.tensors if len(tensor.shape) > 1)
    rows = {tensor.target: f"{tensor.type.name}, {tensor.nbytes:,} bytes" for tensor in matrices}
    show_fields(
        as_json, facts, rows | {"tensors": _counts(result.types)} | _prediction_rows(result.prediction)
    )


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
    from ..files.output import check_target
    from ..workflows.importance_cache import measure_importance

    if fetch:
        others = ("output", "adapter", "calibration", "effort", "revision", "threads")
        options.refuse_given(ctx, others, "--fetch takes no other option than --json")
        _fetch_importance(base, as_json)
        return
    if output is None:
        raise typer.BadParameter("--output is missing; only --fetch needs none")
    base_path, adapter_path = options.fetch_base_and_adapter(base, adapter, revision)
    check_target(output, base_path, *filter(None, (adapter_path, calibration)))
    with stage_bars() as stage:
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
    from ..files.hashing import file_sha256
    from ..workflows.importance_cache import fetch_importance

    path = fetch_importance(base)
    show_file(path, file_sha256(path), as_json)


def _vocabulary(
    vocabulary: str | None,
    base: Path,
    texts: Path | None,
    planned: Any,
    importance: Path | None,
    adapter: Path | None,
    threads: int | None,
) -> "VocabularyList | None":
    """The tokens that --vocabulary keeps; None for all."""
    if vocabulary != "auto":
        return options.resolve_vocabulary(vocabulary, base, texts, threads)
    assert planned and importance, "the commands require a size, for which an importance is measured"
    from ..workflows.vocabulary_size import choose_vocabulary_size

    with stage_bars() as stage:
        kept, losses = choose_vocabulary_size(
            base, planned, importance, adapter=adapter, texts=texts, threads=threads, stage=stage
        )
    for loss in losses:
        note(
            f"{loss.tokens:,} tokens: predicted loss {loss.total:.4f} nats, "
            f"{loss.outside:.4f} of them from tokens that are not kept"
        )
    return kept


def _cached_importance(
    base: Path, adapter: Path | None, calibration: Path | None, effort: str, threads: int | None
) -> Path:
    from ..workflows.importance_cache import cached_importance

    with stage_bars() as stage:
        return cached_importance(
            base, adapter, calibration=calibration, effort=effort, threads=threads, stage=stage
        )


def _show_conversion(
    conversion: "ConversionReport",
    refined: "RefineReport | None",
    check: "FidelityCheck | None",
    report: Path | None,
    as_json: bool,
) -> None:
    """Print a conversion, how it was refined and its fidelity; write all to the file `report` if given."""
    fidelity = check.fidelity if check else None
    warnings = [*conversion.warnings, *(check.warnings if check else ())]
    facts = asdict(conversion) | {
        "warnings": warnings,
        "refine": asdict(refined) if refined else None,
        "fidelity": asdict(fidelity) if fidelity else None,
    }
    if report:
        from ..files.atomic_write import atomic_write

        with atomic_write(report) as file:
            file.write(json_text(facts, indent=2).encode() + b"\n")
    warn(warnings)
    rows = {
        "file": conversion.output,
        "size": f"{conversion.file_bytes:,} bytes, {conversion.bits_per_weight:.2f} bits per weight",
        "tensors": _counts(conversion.types),
        "base": conversion.base.id,
        "adapter": _adapter_text(conversion.adapter) if conversion.adapter else "none",
        **_vocabulary_rows(conversion.vocabulary),
        **(_prediction_rows(conversion.prediction) if conversion.prediction else {}),
        **({"refined": _refined_text(refined)} if refined else {}),
        "sha256": conversion.sha256,
        "time": f"{conversion.seconds:.1f} s",
    }
    if fidelity:
        from ..bench.fidelity.fidelity import fidelity_summary

        rows |= fidelity_summary(fidelity)
    show_fields(as_json, facts, rows)


def _counts(types: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in types.items())


def _vocabulary_rows(size: Any) -> dict[str, str]:
    return {"vocabulary": f"{size.kept:,} of {size.of:,} tokens"} if size else {}


def _prediction_rows(prediction: Any) -> dict[str, str]:
    divergence = prediction.divergence
    return {
        "predicted KL": (
            "unknown: the importance file has no sensitivities"
            if divergence is None
            else f"{divergence:.4f} nats"
        ),
        "predicted speed": f"{prediction.decode_speed:.2f} of uniform Q4_K's ({prediction.target})",
        "planned size": f"{prediction.file_bytes:,} of {prediction.budget_bytes:,} bytes",
    }


def _refined_text(refined: "RefineReport") -> str:
    before, after = refined.divergence_before, refined.divergence_after
    if not refined.steps:
        return f"no: no step lowered the KL of {before:.4f} nats on text that it did not learn from"
    return (
        f"KL {before:.4f} -> {after:.4f} nats on text that it did not learn from, {refined.steps} steps, "
        f"{refined.parameters:,} numbers"
    )


def _adapter_text(adapter: Any) -> str:
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"
