"""The commands that make an adapter by gradients, with PEFT: `train`, and `distill` to have solutions."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .console import command_line, progress_bar, show_facts, show_result, stage_bars
from .options import BaseArgument, Json, Revision, shown_name

if TYPE_CHECKING:
    from ..convert.adapter.basis import Basis
    from ..models.training.grpo import Rollouts
    from ..models.training.recipe import Recipe
    from ..models.training.train import TrainResult

app = typer.Typer()
METHODS = ("sft", "grpo")


@app.command(
    epilog="Example: thirteen train smollm2-135m --data gsm8k-train.jsonl --output my-lora "
    "or: … --kind tinylora, or: … --rank 1,2,3,4"
)
def train(
    base: BaseArgument,
    data: Annotated[Path, typer.Option(help="JSON lines: question, solution, answer.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The adapter's folder; a run there goes on.")
    ],
    kind: Annotated[str, typer.Option(help="lora or tinylora.")] = "lora",
    rank: Annotated[
        str | None,
        typer.Option(help="Of the factors; a list, as 1,2,3,4, trains one for each and compares them."),
    ] = None,
    method: Annotated[str, typer.Option(help="sft on solutions, or grpo on answers.")] = "sft",
    numbers: Annotated[int | None, typer.Option(min=1, help="How many TinyLoRA trains.")] = None,
    alpha: Annotated[int | None, typer.Option(min=1, help="LoRA's; its scale is alpha / rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest one.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="How often each row is taken.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Rows of a step.")] = None,
    micro_rows: Annotated[int | None, typer.Option(min=1, help="Rows computed at once.")] = None,
    share: Annotated[
        float | None, typer.Option(help="The part of the rows that is taken, by the seed.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longer rows are left out.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="The most rows.")] = None,
    held_out: Annotated[int | None, typer.Option(min=1, help="Rows to measure on.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="With grpo: steps.")] = 50,
    questions: Annotated[int, typer.Option(min=1, help="With grpo: questions of a step.")] = 4,
    completions: Annotated[int, typer.Option(min=2, help="With grpo: answers to each.")] = 8,
    completion_tokens: Annotated[int, typer.Option(min=1, help="With grpo: the longest answer.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, max=512, help="Threads.")] = None,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Train an adapter with PEFT on a CPU; by default LoRA as it was published. Needs the extra `train`."""
    from ..models.fetch import fetch
    from ..models.training.grpo import Rollouts
    from ..models.training.recipe import RECIPES

    if kind not in RECIPES or method not in METHODS:
        raise typer.BadParameter(
            f"--kind {kind!r}, --method {method!r}: there are {', '.join(RECIPES)}, and {', '.join(METHODS)}"
        )
    given: dict[str, Any] = {
        "numbers": numbers, "alpha": alpha, "learning_rate": learning_rate, "epochs": epochs,
        "batch_rows": batch_rows, "micro_rows": micro_rows, "share": share, "max_tokens": max_tokens,
        "max_rows": max_rows, "held_out": held_out, "seed": seed, "threads": threads,
    }  # fmt: skip
    recipe = replace(RECIPES[kind], **{name: value for name, value in given.items() if value is not None})
    recipes = {one: replace(recipe, rank=one) for one in (_ranks(rank) if rank else [recipe.rank])}
    path = fetch(base, revision=revision, kind="base")
    if method == "grpo":
        if len(recipes) > 1:
            raise typer.BadParameter(f"--rank {rank}: with --method grpo give one")
        (wanted,) = recipes.values()
        told = _grpo(
            base, path, data, output, wanted, Rollouts(steps, questions, completions, completion_tokens)
        )
        show_facts(as_json, told)
        return
    results = {
        one: _supervised(base, path, data, output / f"rank-{one}" if len(recipes) > 1 else output, wanted)
        for one, wanted in recipes.items()
    }
    facts = {f"rank {one}": _facts(result) for one, result in results.items()}
    show_result(as_json, facts, lambda: _table(results))


def _ranks(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len(set(words)) != len(words):
        raise typer.BadParameter(f"--rank {text!r}: one rank, or several with commas between, each once")
    return [int(word) for word in words]


def _supervised(base: str, path: Path, data: Path, output: Path, recipe: "Recipe") -> "TrainResult":
    from ..models.cards import RunFacts, train_card, write_card
    from ..models.rows import read_rows, split_rows
    from ..models.training.train import base_sha256
    from ..models.training.train import train as run

    rows, held = split_rows(read_rows(data), recipe.held_out, recipe.seed)
    base_id, basis = _base_of(base, recipe)
    with stage_bars() as stage:
        result = run(path, rows, held, output, recipe=recipe, basis=basis, base_id=base_id, stage=stage)
    facts = RunFacts(command_line(), data.name, path.name, base_id)
    write_card(output, train_card(output.name, result, recipe, facts, base_sha256(path)))
    return result


def _base_of(base: str, recipe: "Recipe") -> tuple[str, "Basis | None"]:
    """The name of the base to record, and its basis if the adapter is a TinyLoRA."""
    from ..workflows.adapter_resolver import catalogue_name, hub_id_of, resolve_basis

    name = catalogue_name(base)
    base_id = hub_id_of(name) if name else shown_name(base)
    if recipe.kind != "tinylora":
        return base_id, None
    settings = {"rank": recipe.rank, "numbers": recipe.numbers, "seed": recipe.projection_seed}
    with progress_bar("basis") as progress:
        return base_id, resolve_basis(base, settings=settings, progress=progress)


def _facts(result: "TrainResult") -> dict[str, Any]:
    held, difference = result.held_out, result.held_out.difference
    return {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "rows": result.rows,
        "steps": result.steps,
        "train_s": result.train_s,
        "validation": list(result.validation),
        "loss_before": held.loss_before,
        "loss_after": held.loss_after,
        "difference": {"low": difference.low, "value": difference.estimate, "high": difference.high},
    }


def _table(results: dict[int, "TrainResult"]) -> Table:
    table = Table(
        "rank", "trained numbers", "loss before", "after", "difference, 95 %", "minutes", "adapter", box=None
    )
    for rank, result in results.items():
        held, difference = result.held_out, result.held_out.difference
        table.add_row(
            str(rank),
            f"{result.trained_numbers:,}",
            f"{held.loss_before:.4f}",
            f"{held.loss_after:.4f}",
            f"{difference.low:+.4f} to {difference.high:+.4f}",
            f"{result.train_s / 60:.1f}",
            str(result.folder),
        )
    return table


def _grpo(
    base: str, path: Path, data: Path, output: Path, recipe: "Recipe", rollouts: "Rollouts"
) -> dict[str, Any]:
    from ..models.cards import RunFacts, grpo_card, write_card
    from ..models.rows import read_rows
    from ..models.training.grpo import reinforce

    rows = read_rows(data, ("answer",))
    base_id, basis = _base_of(base, recipe)
    with progress_bar("grpo") as progress:
        result = reinforce(
            path, rows, output, recipe=recipe, rollouts=rollouts, basis=basis, base_id=base_id, moved=progress
        )
    facts = RunFacts(command_line(), data.name, path.name, base_id)
    write_card(output, grpo_card(output.name, result, recipe, rollouts, facts))
    return {
        "output": str(output),
        "trained_numbers": result.trained_numbers,
        "steps": len(result.rewards),
        "reward_first": result.mean(first=True),
        "reward_last": result.mean(first=False),
        "seconds": result.seconds,
        "real_run_hours": result.real_run_hours,
    }


@app.command(
    epilog="Example: thirteen distill questions.jsonl --endpoint http://127.0.0.1:8080/v1 --model my-teacher "
    "--output solutions.jsonl"
)
def distill(
    data: Annotated[Path, typer.Argument(help="JSON lines: question, answer.")],
    endpoint: Annotated[str, typer.Option(help="The URL of an API like OpenAI's, up to /v1.")],
    model: Annotated[str, typer.Option(help="The teacher, by the endpoint's name for it.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The rows to train on; a run there goes on.")
    ],
    key_file: Annotated[Path | None, typer.Option(help="A file with the API key.")] = None,
    system: Annotated[str | None, typer.Option(help="What to tell the teacher beforehand.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of its answers.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest of them.")] = 512,
    as_json: Json = False,
) -> None:
    """Have a teacher model solve questions; keep the solutions whose final answer is right."""
    from ..models.rows import read_rows
    from ..models.training.distill import PROMPT, Teacher
    from ..models.training.distill import distill as run

    rows = read_rows(data, ("answer",))
    key = key_file.read_text(encoding="utf-8").strip() if key_file else None
    teacher = Teacher(endpoint, model, key, system or PROMPT, temperature, max_tokens)
    with progress_bar("distill") as progress:
        done = run(rows, teacher, output, progress)
    facts = {"output": str(output), "teacher": model, **vars(done)}
    show_facts(as_json, facts)
