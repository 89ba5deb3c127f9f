"""Command `thirteen learn`: an adapter from questions with known answers."""

from pathlib import Path
from typing import Annotated

import typer

from .. import options
from ..console import command_line, interval_json, note, run_bars, show_facts
from ..help_sections import advanced_option

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
        Path, typer.Argument(metavar="QUESTIONS", help="JSON lines with question and answer, a number.")
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
    max_tokens: options.MaxTokens = 300,
    seed: Annotated[int, advanced_option(help="Seed of the split and the samples.")] = 0,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Learn an adapter from questions with known answers.

    The model samples solutions, learns from its right and wrong ones, and is measured on questions that were
    set aside: near-duplicates, which differ in numbers and names, are never on both sides.
    """
    from ...workflows.learning import LORA_FILE, LearnRequest, run_learn

    if model.endswith(".jsonl"):
        raise typer.BadParameter("the model comes first: thirteen learn MODEL QUESTIONS")
    request = LearnRequest(**options.matching_options(ctx, LearnRequest))
    with run_bars(threads) as run:
        result = run_learn(request, command_line(), run, note)
    held = result.held_out
    (before, after), (_, gained, lost, _) = held.right, held.counts
    facts = {
        "output": str(output),
        "code": result.code,
        "lora": str(output / LORA_FILE),
        "questions": result.asked,
        "sometimes_right": result.sometimes_right,
        "solutions": result.solutions,
        "expected": interval_json(result.expected),
        "held_out": len(held.base),
        "right_before": before,
        "right_after": after,
        "gained": gained,
        "lost": lost,
        "difference": interval_json(held.difference),
        "verdict": result.verdict,
        "minutes": result.minutes,
    }
    show_facts(
        as_json,
        facts,
        expected=f"{result.expected.text(1, 100)} points among samples, to first order (95 %)",
        difference=f"{held.difference.text(1, 100)} points (95 %)",
        minutes=f"{result.minutes:.1f}",
    )
