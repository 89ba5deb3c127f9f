"""`thirteen train`: an adapter from worked solutions."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from ..learn.recipe import RECIPES, Recipe
from . import options
from .application import ADVANCED, advanced_option, command, refuse_given
from .console import command_line, interval_json, run_bars, show


def _recipe_option(text: str, field: str, panel: str | None = None, **bounds: Any) -> Any:
    """An option whose default is that of the recipe's field."""
    lora, tinylora = (f"{getattr(recipe, field):,}" for recipe in RECIPES.values())
    default = lora if lora == tinylora else f"{lora}; {tinylora} for tinylora"
    return Option(help=f"{text} Default: {default}.", rich_help_panel=panel, **{"min": 1} | bounds)


@command(
    "train smollm2-135m --data gsm8k-train.jsonl --output my-lora",
    "train smollm2-135m --data gsm8k-train.jsonl --output my-tinylora --kind tinylora",
)
def train(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: options.AdapterOutput,
    data: Annotated[Path, Option(help="Training rows: JSON lines with question, solution, answer.")],
    kind: Annotated[Literal["lora", "tinylora"], Option(help="Kind of adapter.")] = "lora",
    numbers: Annotated[int, Option(min=1, help="Trained numbers of a TinyLoRA.")] = 13,
    groups: Annotated[int, advanced_option(min=1, help="Groups of layers with their own numbers.")] = 1,
    learning_rate: Annotated[
        float | None, _recipe_option("Peak learning rate.", "learning_rate", min=1e-9, max=1000)
    ] = None,
    epochs: Annotated[int | None, _recipe_option("Passes over the rows.", "epochs")] = None,
    held_out: Annotated[int | None, _recipe_option("Held-out rows to measure on.", "held_out")] = None,
    batch_rows: Annotated[int | None, _recipe_option("Rows per step.", "batch_rows", ADVANCED)] = None,
    max_tokens: Annotated[int | None, _recipe_option("Drop longer rows.", "max_tokens", ADVANCED)] = None,
    final_line: Annotated[bool, advanced_option(help="Learn a last line with the answer.")] = True,
    calculator: Annotated[
        bool, advanced_option(help="Leave results of equations to the calculator.")
    ] = False,
    bf16: Annotated[
        bool | None, advanced_option(help="Multiply in bfloat16. Default: if the processor does.")
    ] = None,
    seed: Annotated[
        int | None, _recipe_option("Random seed.", "seed", ADVANCED, min=0, max=2**32 - 1)
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Train an adapter with gradients, by PEFT on a CPU.

    The defaults are the published LoRA recipe, and for tinylora the schedule of the shipped adapter
    smollm2-135m-sums-840, whose card has its other options. Requires the extra `train`.
    """
    from ..convert.source.loading import check_packages
    from ..files.processors import multiplies_bf16
    from ..learn.cards import train_card, write_card

    if kind == "lora":
        refuse_given(ctx, ("numbers", "groups"), "it is for --kind tinylora")
    check_packages("peft", "accelerate")
    from ..learn import train as training

    values = {"bf16": multiplies_bf16()} | options.matching_options(ctx, Recipe)
    recipe = replace(RECIPES[kind], **values)
    with run_bars(threads) as run:
        result = training.train(base, data, output, recipe, run)
    write_card(output, train_card(recipe, result, output.resolve().name, command_line(), data.name))
    training.remove_state(output)
    names = ("trained_numbers", "rows", "steps", "train_s", "loss_before", "loss_after")
    facts: dict[str, Any] = {"output": str(output), **{name: getattr(result, name) for name in names}}
    facts["difference"] = interval_json(result.difference)
    shown = {"difference": f"{result.difference.text(4)} nats per token (95 %)"}
    show(as_json, facts, facts | shown)
