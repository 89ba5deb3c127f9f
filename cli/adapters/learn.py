"""Commands that make adapters: `thirteen learn`, from questions with known answers, and `thirteen train`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ...learn.recipe import KINDS, RECIPES
from .. import options
from ..console import command_line, interval_json, note, run_bars, show_facts
from ..help_sections import ADVANCED, advanced_option

app = typer.Typer()


@app.command(
    epilog=options.example(
        "learn my-model.gguf questions.jsonl --output my-adapter",
        "learn embedded sums.jsonl --minutes 20 --held-out sums-held-out.jsonl --output my-adapter",
    )
)
def learn(
    ctx: typer.Context,
    model: options.ModelArgument,
    questions: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help="JSON lines with question and answer.")
    ],
    output: options.AdapterOutput,
    numbers: Annotated[int, typer.Option(help="Trained numbers.")] = 13,
    minutes: Annotated[
        float, typer.Option(help="Maximum expected time; it limits how many of the questions are used.")
    ] = 60,
    held_out: Annotated[
        str,
        typer.Option(
            metavar="FILE|SHARE|all",
            help="Questions to measure on: a share to set aside, a file of others, or all, in five folds.",
        ),
    ] = "0.3",
    without_answers: Annotated[
        bool,
        typer.Option(
            "--without-answers",
            help="Learn from questions without answers: from what most of the votes of effort high agree on.",
        ),
    ] = False,
    max_tokens: options.MaxTokens = 300,
    prompt: Annotated[
        str,
        typer.Option(
            metavar="search|default|TEXT",
            help="What stands around a question: the best of some prompts, nothing, or a system prompt; or a "
            "JSON file or an adapter folder with one.",
        ),
    ] = "search",
    seed: Annotated[int, advanced_option(help="Seed of the split and the samples.")] = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Learn an adapter from questions with known answers: numbers, texts or JSON values.

    The prompt that the model answers best with is chosen first. With it the model samples
    solutions, and learns from its right and wrong ones. Base, prompt and adapter are measured on questions
    that were set aside: near-duplicates, which differ in numbers and names, are never on both sides.
    """
    from ...workflows.learn_request import LearnRequest
    from ...workflows.learning import LORA_FILE, run_learn

    if model.endswith(".jsonl"):
        raise typer.BadParameter("the model comes first: thirteen learn MODEL QUESTIONS")
    request = LearnRequest(**options.matching_options(ctx, LearnRequest))
    with run_bars(threads) as run:
        result = run_learn(request, command_line(), run, note)
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
        facts |= {"code": learned.code, "lora": str(output / LORA_FILE), "solutions": learned.solutions}
    facts |= {name: interval_json(one) for name, one in points.items()}
    facts |= {"prompt": result.prompt.text, "verdict": result.verdict, "minutes": result.minutes}
    of = {"expected": " among samples, to first order"}
    shown = {name: f"{one.text(1, 100)} points{of.get(name, '')} (95 %)" for name, one in points.items()}
    show_facts(as_json, facts, **shown, minutes=f"{result.minutes:.1f}")


def _recipe_option(text: str, field: str, panel: str | None = None) -> Any:
    """An option whose default is that of the recipe's field."""
    lora, tinylora = (f"{getattr(RECIPES[kind], field):,}" for kind in KINDS)
    default = lora if lora == tinylora else f"{lora}; {tinylora} for tinylora"
    return typer.Option(help=f"{text} Default: {default}.", rich_help_panel=panel)


@app.command(
    epilog=options.example(
        "train smollm2-135m --data gsm8k-train.jsonl --output my-lora",
        "train smollm2-135m --data gsm8k-train.jsonl --output my-tinylora --kind tinylora",
    )
)
def train(
    ctx: typer.Context,
    base: options.BaseArgument,
    output: options.AdapterOutput,
    data: Annotated[Path, typer.Option(help="Training rows: JSON lines with question, solution, answer.")],
    kind: Annotated[Literal["lora", "tinylora"], typer.Option(help="Kind of adapter.")] = "lora",
    basis: options.Basis = None,
    learning_rate: Annotated[float | None, _recipe_option("Peak learning rate.", "learning_rate")] = None,
    epochs: Annotated[int | None, _recipe_option("Passes over the rows.", "epochs")] = None,
    held_out: Annotated[
        int | None, _recipe_option("Number of held-out rows to measure on.", "held_out")
    ] = None,
    rank: Annotated[int | None, _recipe_option("Rank of the factors.", "rank", ADVANCED)] = None,
    numbers: Annotated[
        int | None, _recipe_option("Trained numbers of a TinyLoRA.", "numbers", ADVANCED)
    ] = None,
    alpha: Annotated[
        int | None, _recipe_option("LoRA alpha; the scale is alpha / rank.", "alpha", ADVANCED)
    ] = None,
    batch_rows: Annotated[int | None, _recipe_option("Rows per step.", "batch_rows", ADVANCED)] = None,
    max_tokens: Annotated[
        int | None, _recipe_option("Drop rows with more tokens.", "max_tokens", ADVANCED)
    ] = None,
    max_rows: Annotated[int | None, _recipe_option("Maximum rows to train on.", "max_rows", ADVANCED)] = None,
    final_line: Annotated[
        bool | None,
        advanced_option(help="Learn a last line with the final answer after each solution, the default."),
    ] = None,
    calculator: Annotated[
        bool | None,
        advanced_option(help="Do not learn results of equations, which the calculator completes."),
    ] = None,
    bf16: Annotated[
        bool | None,
        advanced_option(help="Multiply in bfloat16. Default: where the processor does so itself."),
    ] = None,
    seed: Annotated[int | None, _recipe_option("Random seed.", "seed", ADVANCED)] = None,
    threads: Annotated[int | None, _recipe_option("CPU threads.", "threads", ADVANCED)] = None,
    as_json: options.Json = False,
) -> None:
    """Train an adapter with gradients, by PEFT on a CPU.

    The defaults are the published LoRA recipe, and for tinylora the schedule of the shipped adapter
    smollm2-135m-sums-840, whose card has its other options. Requires the extra `train`.
    """
    from ...workflows.training import TrainingRequest, run_training

    request = TrainingRequest(**options.matching_options(ctx, TrainingRequest))
    with run_bars(threads) as run:
        result = run_training(request, command_line(), run)
    held = result.held_out
    facts = {
        "output": str(output),
        "trained_numbers": result.trained_numbers,
        "rows": result.rows,
        "steps": result.steps,
        "train_s": result.train_s,
        "validation": list(result.validation),
        "loss_before": held.loss_before,
        "loss_after": held.loss_after,
        "difference": interval_json(held.difference),
    }
    show_facts(as_json, facts, difference=f"{held.difference.text(4)} nats per token (95 %)")
