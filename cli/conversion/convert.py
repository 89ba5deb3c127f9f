"""Commands `thirteen convert`, `merge`, `plan`, `importance` and `vocabulary`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..console import note, run_bars, show_fields, show_file, warn
from . import inputs
from .layout import layout_facts, layout_rows

if TYPE_CHECKING:
    from ...workflows.vocabulary.vocabulary_size import SizeLoss

app = typer.Typer()


@app.command(
    epilog=options.example(
        "convert llama-3.2-1b --adapter ./my-lora --type Q4_K --output my-model.gguf",
        "convert llama-3.2-1b --adapter ./my-lora --size 600MB --output my-model.gguf",
        "convert llama-3.2-1b --vocabulary 49152 --size 600MB --output my-model.gguf",
    )
)
def convert(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: options.Output,
    adapter: options.Adapter = None,
    prompt: inputs.Prompt = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="ggml type: Q4_K (default), Q8_0, IQ4_NL, F16, …; same: as in the base."),
    ] = None,
    size: inputs.Size = None,
    vocabulary: inputs.Vocabulary = None,
    vocabulary_texts: inputs.VocabularyTexts = None,
    importance: inputs.Importance = None,
    calibration: inputs.Calibration = None,
    thoroughness: inputs.ConversionThoroughness = None,
    target: inputs.Target = None,
    prefer: inputs.Prefer = None,
    costs: inputs.Costs = None,
    library: options.Library = None,
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Compare with F16 over 1,024 positions of held-out text. Default: only with an adapter.",
        ),
    ] = None,
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter into a base and write a quantized GGUF.

    The GGUF has one type, or for a given size a planned type for each tensor.
    """
    from ...quality.fidelity.fidelity import fidelity_summary
    from ...workflows.conversion import run_conversion
    from ...workflows.conversion_request import ConversionRequest

    request = ConversionRequest(type=type_, **options.matching_options(ctx, ConversionRequest))
    with run_bars(threads) as run:
        result = run_conversion(request.resolve(run), run)
    conversion, measured = result.conversion, result.fidelity
    layout, kept, facts = conversion.layout, conversion.vocabulary, dict(vars(conversion))
    facts |= layout_facts(facts.pop("layout")) | {"warnings": result.warnings, "fidelity": measured}
    _note_losses(result.losses)
    warn(result.warnings)
    rows = {
        "file": str(conversion.output),
        **layout_rows(layout),
        "base": conversion.base.id,
        "adapter": _adapter_text(conversion.adapter),
        **({"vocabulary": f"{kept['kept']:,} of {kept['of']:,} tokens"} if kept else {}),
        "sha256": conversion.sha256,
        "time": f"{conversion.seconds:.1f} s",
        **(fidelity_summary(measured) if measured else {}),
    }
    show_fields(as_json, facts, rows)


@app.command(epilog=options.example("merge llama-3.2-1b --adapter ./my-lora --out merged"))
def merge(
    base: options.BaseArgument,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write; it must be new or empty.")],
    adapter: Annotated[str, typer.Option(help=options.ADAPTER)],
    as_json: options.Json = False,
) -> None:
    """Merge an adapter and write safetensors.

    The output is a checkpoint for vLLM, transformers and other loaders. A GGUF is dequantized.
    """
    from ...convert.merged_checkpoint import merge_checkpoint
    from ...files.output import check_empty
    from ...learn.base_model import save_settings
    from ...models.adapter import resolve_sources

    check_empty(out_dir)
    with run_bars() as run:
        path, folder, ids = resolve_sources(base, adapter, run)
        assert folder is not None, "it is named"
        merged = merge_checkpoint(
            path, folder, out_dir, ids=ids, progress=run.stage("merge"), save_settings=save_settings
        )
    warn(merged.warnings)
    types = ", ".join(f"{count} {name}" for name, count in merged.types.items())
    rows = {
        "output": merged.output,
        "weights": f"{merged.total_bytes:,} bytes; tensors: {types}",
        "adapter": _adapter_text(merged.adapter),
    }
    show_fields(as_json, asdict(merged), rows)


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
    library: options.Library = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Plan a file of a given size, without writing it.

    The plan has the type of each tensor and a prediction of quality and speed.
    """
    from ...workflows.conversion import run_plan
    from ...workflows.conversion_request import ConversionRequest

    request = ConversionRequest(**options.matching_options(ctx, ConversionRequest))
    with run_bars(threads) as run:
        layout, losses, warnings = run_plan(request.resolve(run), run)
    _note_losses(losses)
    warn(warnings)
    tensors = [{**vars(tensor), "type": tensor.type.name} for tensor in layout.tensors]
    matrices = (tensor for tensor in layout.tensors if len(tensor.shape) > 1)
    rows = {tensor.target: f"{tensor.type.name}, {tensor.nbytes:,} bytes" for tensor in matrices}
    facts = layout_facts(layout) | {"tensors": tensors, "warnings": warnings}
    show_fields(as_json, facts, rows | layout_rows(layout))


def _note_losses(losses: "tuple[SizeLoss, ...]") -> None:
    """Note what a file would lose with each number of tokens that was compared."""
    for loss in losses:
        note(
            f"{loss.tokens:,} tokens: predicted loss {loss.total:.4f} nats, "
            f"{loss.outside:.4f} of them from tokens that are not kept"
        )


def _adapter_text(adapter: Any) -> str:
    """An `AdapterSource`, or none."""
    if adapter is None:
        return "none"
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"


@app.command(epilog=options.example("importance smollm2-135m --output importance.gguf"))
def importance(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Importance file to write.")],
    adapter: options.Adapter = None,
    calibration: inputs.Calibration = None,
    thoroughness: inputs.Thoroughness = "normal",
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the importance of weights.

    The file has activations, covariances and sensitivities. It is an importance matrix in llama.cpp's format:
    llama-quantize reads it, and convert reads llama.cpp's files.
    """
    from ...convert.source.checkpoint import open_checkpoint
    from ...files.output import check_target
    from ...models.adapter import resolve_sources
    from ...models.texts import CALIBRATION
    from ...workflows.importance_cache import Calibration, measure_importance

    measured_on = Calibration(calibration or CALIBRATION, thoroughness)
    check_target(output, replace=replace)
    measured_on.texts.stat()  # a missing file is refused before anything is downloaded
    with run_bars(threads) as run:
        path, folder, _ = resolve_sources(base, adapter, run)
        check_target(output, path, *filter(None, (folder, calibration)))
        sha256 = measure_importance(open_checkpoint(path), folder, output, measured_on, run)
    show_file(output, sha256, as_json)


@app.command(epilog=options.example("vocabulary llama-3.2-1b --output vocabulary.json"))
def vocabulary(
    base: options.BaseArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="List of tokens to write, as JSON.")],
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Texts of your own, besides the built-in ones: JSON lines with text, or question and answer."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Number of tokens that stay.")] = 49152,
    replace: options.Force = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Choose which tokens of a base a smaller file keeps.

    The list is for convert and plan. `plan --vocabulary auto` compares what files of different sizes of the
    vocabulary lose.
    """
    from ...convert.source.checkpoint import open_checkpoint
    from ...files.hashing import file_sha256
    from ...files.output import check_target
    from ...models.base import resolve_base
    from ...workflows.vocabulary.vocabulary_choice import choose_vocabulary

    check_target(output, replace=replace)
    if texts:
        texts.stat()  # a missing file is refused before anything is downloaded
    path = resolve_base(base).path
    check_target(output, path, *filter(None, (texts,)))
    with run_bars(threads) as run:
        kept = choose_vocabulary(open_checkpoint(path), size, texts, run)
    kept.save(output)
    sha256 = file_sha256(output)
    facts = {"output": str(output), "sha256": sha256, "tokens": len(kept.tokens), "of": kept.of}
    rows = {"list": str(output), "tokens": f"{len(kept.tokens):,} of {kept.of:,}", "sha256": sha256}
    show_fields(as_json, facts, rows)
