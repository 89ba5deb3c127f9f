"""Command `thirteen convert`: a base and an adapter to a GGUF or to safetensors, or only the plan of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from ..errors import OptionError
from . import options
from .application import advanced_option, command, refuse_given
from .console import run_bars, show, warn

if TYPE_CHECKING:
    from ..bench.fidelity.conversion import ConversionResult
    from ..convert.write import FileLayout

_OF_SAFETENSORS = {"base", "output", "adapter", "to_safetensors", "threads", "as_json"}


@command(
    "convert llama-3.2-1b --adapter ./my-lora --type Q4_K --output my-model.gguf",
    "convert llama-3.2-1b --adapter ./my-lora --size 600MB --output my-model.gguf",
    "convert llama-3.2-1b --vocabulary 49152 --size 600MB --dry-run",
    "convert llama-3.2-1b --adapter ./my-lora --to-safetensors --output merged",
)
def convert(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: Annotated[Path | None, Option("--output", "-o", help="GGUF or folder to write.")] = None,
    adapter: Annotated[str | None, Option(help=options.ADAPTER)] = None,
    prompt: Annotated[
        Path | None,
        Option(help="Adapter folder or JSON file of learn: its prompt goes into the chat template."),
    ] = None,
    type_: Annotated[
        str | None, Option("--type", help="Q4_K (default), Q8_0, IQ4_NL, F16, …; same: as in the base.")
    ] = None,
    size: Annotated[
        str | None, Option(help="Maximum size: 600MB, 572MiB or 3.9bpw. Plans each tensor's type.")
    ] = None,
    vocabulary: Annotated[int | None, Option(metavar="N", help="Keep N tokens.", min=1)] = None,
    thoroughness: Annotated[
        str | None,
        Option(
            "--calibration",
            metavar="quick|normal|thorough",
            help="Text to measure importance on; thorough also searches scales, slowly. Default: normal.",
        ),
    ] = None,
    importance: Annotated[
        Path | None, advanced_option(help="Importance file; written if missing. Default: in the cache.")
    ] = None,
    texts: Annotated[
        Path | None, advanced_option(help="Texts to measure importance on and choose tokens by: JSON lines.")
    ] = None,
    target: Annotated[
        str | None,
        advanced_option(
            help="Processors to plan for: x86, x86-avx512, x86-amx, arm, wasm, any; or a file of costs."
        ),
    ] = None,
    prefer: Annotated[str | None, advanced_option(help="quality or speed. Default: between.")] = None,
    fidelity: Annotated[
        bool | None,
        Option(
            "--fidelity/--no-fidelity", help="Compare with F16 on held-out text. Default: with an adapter."
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan only.")] = False,
    to_safetensors: Annotated[
        bool, Option("--to-safetensors", help="Write a checkpoint for vLLM and transformers.")
    ] = False,
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter into a base and write a quantized GGUF.

    The GGUF has one type, or for a given size a planned type for each tensor.
    """
    from ..bench.fidelity.conversion import run_conversion
    from ..convert.convert import plan
    from ..models.conversion import ConversionRequest

    if (output is None) != dry_run:
        raise OptionError("output", "{dry_run} writes no file" if output else "missing")
    if to_safetensors:
        refuse_given(ctx, ctx.params.keys() - _OF_SAFETENSORS, "is for a GGUF, not with --to-safetensors")
        assert output is not None, "it is not a dry run"
        _merge(base, adapter, output, threads, as_json)
        return
    request = ConversionRequest(type=type_, **options.matching_options(ctx, ConversionRequest))
    with run_bars(threads) as run:
        conversion = request.resolve(run)
        if dry_run:
            layout, warnings = plan(conversion.measured(run), run)
        else:
            result = run_conversion(conversion, run)
            layout, warnings = result.conversion.layout, result.warnings
    warn(warnings)
    facts: dict[str, Any] = {
        "file_bytes": layout.file_bytes,
        "bits_per_weight": layout.bits_per_weight,
        "types": {name: share.tensors for name, share in layout.types.items()},
        "prediction": layout.prediction,
        "warnings": warnings,
    }
    if dry_run:
        facts["tensors"] = [{**vars(tensor), "type": tensor.type.name} for tensor in layout.tensors]
        matrices = (tensor for tensor in layout.tensors if len(tensor.shape) > 1)
        rows = {tensor.target: f"{tensor.type.name}, {tensor.nbytes:,} bytes" for tensor in matrices}
        show(as_json, facts, rows | layout_rows(layout))
    else:
        _show_result(result, facts, as_json)


def _show_result(result: "ConversionResult", facts: dict[str, Any], as_json: bool) -> None:
    conversion, measured = result.conversion, result.fidelity
    facts = {**vars(conversion), **facts, "fidelity": measured}
    del facts["layout"]
    kept = conversion.vocabulary
    rows = {
        "file": conversion.output,
        **layout_rows(conversion.layout),
        "base": conversion.base.id,
        "adapter": _adapter_text(conversion.adapter),
        **({"vocabulary": f"{kept['kept']:,} of {kept['of']:,} tokens"} if kept else {}),
        "sha256": conversion.sha256,
        "time": f"{conversion.seconds:.1f} s",
        **({**dict(measured.figures()), "verdict": "\n".join(measured.verdict)} if measured else {}),
    }
    show(as_json, facts, rows)


def _merge(base: str, adapter: str | None, output: Path, threads: int | None, as_json: bool) -> None:
    from ..convert.merged_checkpoint import merge_checkpoint
    from ..files.output import check_empty
    from ..models.adapter import resolve_sources

    if adapter is None:
        raise OptionError("adapter", "missing")
    check_empty(output)
    with run_bars(threads) as run:
        path, folder, ids = resolve_sources(base, adapter, run)
        assert folder is not None, "it is named"
        merged = merge_checkpoint(path, folder, output, ids=ids, progress=run.stage("merge"))
    warn(merged.warnings)
    types = ", ".join(f"{count} {name}" for name, count in merged.types.items())
    rows = {
        "output": merged.output,
        "weights": f"{merged.total_bytes:,} bytes; tensors: {types}",
        "adapter": _adapter_text(merged.adapter),
    }
    show(as_json, merged, rows)


def _adapter_text(adapter: Any) -> str:
    if adapter is None:
        return "none"
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"


def layout_rows(layout: "FileLayout") -> dict[str, object]:
    """Size, types and prediction by name."""
    rows: dict[str, object] = {
        "size": f"{layout.file_bytes:,} bytes, {layout.bits_per_weight:.2f} bits per weight"
    }
    for name, share in layout.types.items():
        rows[f"type {name}"] = f"{share.tensors} tensors, {share.weights:,} weights, {share.nbytes:,} bytes"
    if predicted := layout.prediction:
        loss, speed = predicted.divergence, predicted.decode_speed
        rows["predicted KL"] = (
            "unknown: the importance file has no sensitivities" if loss is None else f"{loss:.4f} nats"
        )
        rows["predicted speed"] = f"{speed:.2f} of uniform Q4_K's ({predicted.target}, {predicted.library})"
        rows["planned size"] = f"{predicted.file_bytes:,} of {predicted.budget_bytes:,} bytes"
    return rows
