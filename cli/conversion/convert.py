"""Command `thirteen convert`, and the texts that it shares with `plan` and `merge`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import options
from ..console import note, run_bars, show_fields, warn
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
    fidelity: Annotated[
        bool | None,
        typer.Option(
            "--fidelity/--no-fidelity",
            help="Compare with F16 over 1,024 positions of held-out text. Default: only with an adapter.",
        ),
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Merge an adapter into a base and write a quantized GGUF.

    The GGUF has one type, or for a given size a planned type for each tensor.
    """
    from ...quality.fidelity.fidelity import fidelity_summary
    from ...workflows.conversion import ConversionRequest, run_conversion

    request = ConversionRequest(type=type_, **options.matching_options(ctx, ConversionRequest))
    with run_bars(threads) as run:
        result = run_conversion(request, run)
    conversion, measured = result.conversion, result.fidelity
    layout, facts = conversion.layout, dict(vars(conversion))
    facts |= layout_facts(facts.pop("layout")) | {"warnings": result.warnings, "fidelity": measured}
    note_losses(result.losses)
    warn(result.warnings)
    rows = {
        "file": str(conversion.output),
        **layout_rows(layout),
        "base": conversion.base.id,
        "adapter": adapter_text(conversion.adapter),
        **({"vocabulary": f"{kept.kept:,} of {kept.of:,} tokens"} if (kept := conversion.vocabulary) else {}),
        "sha256": conversion.sha256,
        "time": f"{conversion.seconds:.1f} s",
        **(fidelity_summary(measured) if measured else {}),
    }
    show_fields(as_json, facts, rows)


def note_losses(losses: "tuple[SizeLoss, ...]") -> None:
    """Note what a file would lose with each number of tokens that was compared."""
    for loss in losses:
        note(
            f"{loss.tokens:,} tokens: predicted loss {loss.total:.4f} nats, "
            f"{loss.outside:.4f} of them from tokens that are not kept"
        )


def adapter_text(adapter: Any) -> str:
    """An `AdapterSource`, or none."""
    if adapter is None:
        return "none"
    trained = f", {adapter.trained:,} trained numbers" if adapter.trained is not None else ""
    return f"{adapter.id} ({adapter.kind}{trained}), merged by {adapter.merged_by}"
