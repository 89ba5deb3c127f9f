"""Command `thirteen train`: an adapter by gradients."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...learn.recipe import KINDS, METHODS, RECIPES, ROLLOUT_DEFAULTS
from .. import options
from ..console import progress_bar
from .training_runs import show_npg, show_sft

if TYPE_CHECKING:
    from ...convert.adapter.basis import Basis

_OF_SFT = ("epochs", "batch_rows", "max_tokens", "max_rows", "held_out", "final_line", "calculator")
# Options that a method does not use.
_UNUSED = {"sft": ("kl", "start"), "npg": (*_OF_SFT, "learning_rate")}

_ROLLOUT_DEFAULTS = ", ".join(
    f"--{name.replace('_', '-')} {value}" for name, value in ROLLOUT_DEFAULTS.items()
)

app = typer.Typer()


def _help(text: str, field: str) -> str:
    """Help of an option whose default is that of the recipe's field."""
    lora, tinylora = (f"{getattr(RECIPES[kind], field):,}" for kind in KINDS)
    return f"{text} Default: {lora}" + ("." if lora == tinylora else f"; {tinylora} for tinylora.")


def _number(text: str, field: str, minimum: int = 1) -> Any:
    return typer.Option(min=minimum, help=_help(text, field))


@app.command(
    epilog=options.example(
        "train smollm2-135m --data gsm8k-train.jsonl --output my-lora",
        "train smollm2-135m --data gsm8k-train.jsonl --output my-tinylora --kind tinylora",
        "train my-model.gguf --rollouts rollouts.jsonl --output my-lora",
    )
)
def train(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: options.AdapterOutput,
    data: Annotated[
        Path | None, typer.Option(help="Training rows: JSON lines with question, solution, answer.")
    ] = None,
    rollouts: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --data: rollouts. With npg right and wrong solutions are learned from. With sft "
            "the right ones are, with GRPO's weights; --held-out counts questions, and the defaults are "
            f"{_ROLLOUT_DEFAULTS}."
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of adapter: lora or tinylora.")] = "lora",
    method: Annotated[
        str,
        typer.Option(
            help="Method: sft on solutions, or npg: one natural policy gradient step on right and wrong "
            "rollouts, for tinylora."
        ),
    ] = "sft",
    rank: Annotated[int | None, _number("Rank of the factors.", "rank")] = None,
    numbers: Annotated[int | None, _number("Trained numbers of a TinyLoRA.", "numbers")] = None,
    alpha: Annotated[int | None, _number("LoRA alpha; the scale is alpha / rank.", "alpha")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=_help("Peak learning rate.", "learning_rate"))
    ] = None,
    epochs: Annotated[int | None, _number("Passes over the rows.", "epochs")] = None,
    batch_rows: Annotated[int | None, _number("Rows per step.", "batch_rows")] = None,
    max_tokens: Annotated[int | None, _number("Drop rows with more tokens.", "max_tokens")] = None,
    max_rows: Annotated[int | None, _number("Maximum rows to train on.", "max_rows")] = None,
    held_out: Annotated[int | None, _number("Number of held-out rows to measure on.", "held_out")] = None,
    final_line: Annotated[
        bool, typer.Option(help="With --data: learn a last line with the final answer after each solution.")
    ] = True,
    calculator: Annotated[
        bool,
        typer.Option(help="With --data: do not learn results of equations, which the calculator completes."),
    ] = False,
    bf16: Annotated[
        bool | None,
        typer.Option(help="Multiply in bfloat16. Default: where the processor does so itself."),
    ] = None,
    seed: Annotated[int | None, _number("Random seed.", "seed", 0)] = None,
    basis: options.Basis = None,
    kl: Annotated[float, typer.Option(help="With npg: KL divergence of the step, in nats per token.")] = 0.01,
    start: Annotated[
        str | None,
        typer.Option(
            help="With npg: adapter over the same basis, or its code, to start from. The rollouts must be "
            "its own."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help=_help("CPU threads.", "threads"))
    ] = None,
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Train an adapter with gradients, by PEFT on a CPU.

    The defaults are the published LoRA recipe, and for tinylora the settings of the shipped adapter
    smollm2-135m-sums-840, but for its basis and rows. Requires the extra `train`.
    """
    from ...convert.provenance import provenance_name
    from ...files.output import check_folder
    from ...files.processors import multiplies_bf16
    from ...learn.cards import check_card
    from ...learn.job import TrainingJob
    from ...learn.recipe import Recipe
    from ...models.fetch import fetch
    from ...workflows.adapter_resolver import catalogue_name, hub_id_of, resolve_basis

    _check_method(ctx, method)
    defaults = {"bf16": multiplies_bf16()} | (ROLLOUT_DEFAULTS if rollouts else {})
    recipe = replace(RECIPES.get(kind, Recipe()), **defaults)
    found = _read_basis(base, basis, kind, {"--rank": rank, "--numbers": numbers}) if basis else None
    if found:
        origin = found.origin
        recipe = replace(recipe, rank=origin.rank, numbers=origin.numbers, projection_seed=origin.seed)
    recipe = replace(recipe, **options.matching_options(ctx, Recipe))  # match its fields by name
    check_folder(output)
    check_card(output)
    path = fetch(base, revision=revision, kind="base")
    if output.resolve() == (path.parent if path.is_file() else path).resolve():
        raise typer.BadParameter(f"--output {output}: it is the folder of the base")
    hub_name = catalogue_name(base)
    base_id = hub_id_of(hub_name) if hub_name else provenance_name(base)
    job = TrainingJob(path, output, recipe, found, base_id)
    if kind == "tinylora" and not found:
        settings = {"rank": recipe.rank, "numbers": recipe.numbers, "seed": recipe.projection_seed}
        with progress_bar("basis") as progress:
            job = replace(job, basis=resolve_basis(base, settings=settings, progress=progress))
    if rollouts and method == "npg":
        folder = options.resolve_adapter(start) if start else None
        show_npg(job, rollouts, folder, kl, as_json)
    else:
        show_sft(job, data, rollouts, as_json)


def _check_method(ctx: typer.Context, method: str) -> None:
    """Refuse an unknown method, and options that would have no effect."""
    if method not in METHODS:
        raise typer.BadParameter(f"--method {method!r}: must be one of {', '.join(METHODS)}")
    given = ctx.params
    if method == "npg" and given["kind"] != "tinylora":
        raise typer.BadParameter("--method npg: it is for --kind tinylora")
    data, rollouts = given["data"], given["rollouts"]
    if method == "npg" and data:
        raise typer.BadParameter(f"--data {data}: --method npg takes --rollouts")
    if data and rollouts:
        raise typer.BadParameter(f"--data {data} and --rollouts {rollouts} exclude each other")
    if not (data or rollouts):
        raise typer.BadParameter("give --data or --rollouts")
    options.refuse_given(ctx, _UNUSED[method], f"it is not for --method {method}")
    if rollouts:
        options.refuse_given(ctx, ("final_line", "calculator"), "it is for --data")
    if given["kind"] in KINDS:
        other_kind = "alpha" if given["kind"] == "tinylora" else "numbers"
        options.refuse_given(ctx, (other_kind,), f"it is not for --kind {given['kind']}")
    if not 1e-6 <= given["kl"] <= 1:
        raise typer.BadParameter(f"--kl {given['kl']}: must be from 0.000001 to 1")
    if given["start"] and Path(given["start"]).resolve() == given["output"].resolve():
        raise typer.BadParameter(f"--output {given['output']}: it is the folder of --start")


def _read_basis(base: str, file: Path, kind: str, excluded: dict[str, int | None]) -> "Basis":
    """Read a file of adapter basis, which determines what the excluded options say."""
    from ...workflows.adapter_resolver import resolve_basis

    if kind != "tinylora":
        raise typer.BadParameter(f"--basis {file}: it is for --kind tinylora")
    if given := [name for name, value in excluded.items() if value is not None]:
        raise typer.BadParameter(f"--basis {file}: it determines {' and '.join(given)}")
    return resolve_basis(base, file)
