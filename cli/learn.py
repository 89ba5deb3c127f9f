"""Commands `thirteen learn` and `thirteen train`: an adapter from questions, or from worked solutions."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from ..files.progress import Run
from ..learn.recipe import RECIPES, Recipe
from . import options
from .application import ADVANCED, advanced_option, command, refuse_given
from .console import command_line, note, run_bars, show

if TYPE_CHECKING:
    from ..learn.learning import LearnBase
    from ..stats.intervals import Interval


@command(
    "learn my-model.gguf questions.jsonl --output my-adapter",
    "learn embedded sums.jsonl --minutes 20 --held-out sums-held-out.jsonl --output my-adapter",
)
def learn(
    ctx: typer.Context,
    model: options.ModelArgument,
    questions: Annotated[Path, Argument(metavar="QUESTIONS", help="JSON lines: question, answer.")],
    output: options.AdapterOutput,
    numbers: Annotated[int, Option(help="Trained numbers.")] = 13,
    minutes: Annotated[float, Option(help="Limit of the expected time, by using fewer questions.")] = 60,
    held_out: Annotated[
        str,
        Option(
            metavar="FILE|SHARE|all",
            help="Questions to measure on: a file, a share to set aside, or all, in five folds.",
        ),
    ] = "0.3",
    max_tokens: options.MaxTokens = 300,
    prompt: Annotated[
        str,
        Option(
            metavar="search|default|TEXT",
            help="Prompt: the best of some, none, a system prompt, or a JSON file or adapter folder.",
        ),
    ] = "search",
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Learn an adapter from questions with known answers.

    The answers are numbers, texts or JSON values. The prompt that the model answers best with is chosen
    first. With it the model samples solutions, and learns from its right and wrong ones. Base, prompt and
    adapter are measured on questions that were set aside: near-duplicates, which differ in numbers and names,
    are never on both sides.
    """
    from ..convert.source.loading import check_packages
    from ..learn.cards import check_output, learn_card, write_card
    from ..learn.questions import LearnRequest

    request = LearnRequest(**options.matching_options(ctx, LearnRequest))
    check_output(output, ".learn.jsonl")
    rows = request.read_questions()
    check_packages()
    from ..learn import learning

    with run_bars(threads) as run:
        result = learning.learn(request, rows, _find_base(model, output, numbers, run), run, note)
    write_card(output, learn_card(result, model, output.resolve().name, command_line(), questions.name))
    held, learned = result.held_out, result.learned
    (before, prompted, after), (_, gained, lost, _) = held.right, held.change.counts
    points = {"difference": held.change.difference, "difference_of_prompt": held.of_prompt.difference}
    facts = {
        "output": str(output),
        "questions": result.asked,
        "sometimes_right": result.sometimes_right,
        "never_right": result.never_right,
        "held_out": len(held.base),
        "right_before": before,
        "right_with_prompt": prompted,
        "right_after": after,
        "gained": gained,
        "lost": lost,
    }
    if learned:
        points |= {"difference_of_adapter": held.of_adapter.difference, "expected": learned.expected}
        facts |= {
            "code": learned.code,
            "lora": str(output / learning.LORA_FILE),
            "solutions": learned.solutions,
        }
    facts |= {name: _interval_json(one) for name, one in points.items()}
    facts |= {"prompt": result.prompt.text, "verdict": result.verdict, "minutes": result.minutes}
    of = {"expected": " among samples, to first order"}
    shown = {name: f"{one.text(1, 100)} points{of.get(name, '')} (95 %)" for name, one in points.items()}
    show(as_json, facts, facts | shown | {"minutes": f"{result.minutes:.1f}"})


def _interval_json(interval: "Interval") -> dict[str, float]:
    return {"low": interval.low, "value": interval.estimate, "high": interval.high}


def _find_base(model: str, output: Path, numbers: int, run: Run) -> "LearnBase":
    """Find MODEL, the embedded one without its adapter, with its basis and its smaller vocabulary."""
    from ..learn.base_model import check_base
    from ..learn.cards import refuse_base_folder
    from ..learn.learning import LearnBase
    from ..models.adapter import find_basis
    from ..models.base import resolve_base
    from ..models.embedded import NAME
    from ..models.resolve import resolve, trimmed_model

    full = resolve(NAME if model == "embedded" else model, run=run, announce=note).model
    refuse_base_folder(output, full)
    check_base(full)
    base = resolve_base(model, original=True)
    return LearnBase(base.trained_id, full, trimmed_model(full, run), find_basis(base, run, numbers=numbers))


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
    facts["difference"] = _interval_json(result.difference)
    shown = {"difference": f"{result.difference.text(4)} nats per token (95 %)"}
    show(as_json, facts, facts | shown)
