"""Commands that train an adapter with gradients, or prepare for it: `train`, `distill`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ...learn.recipe import KINDS, RECIPES, ROLLOUT_DEFAULTS
from .. import options
from ..console import command_line, interval_json, progress_bar, show_fields, show_result, stage_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...convert.adapter.basis import Basis
    from ...learn.grpo import GrpoSettings
    from ...learn.job import TrainingJob
    from ...learn.npg import NpgResult
    from ...learn.recipe import Recipe
    from ...learn.rollout_rows import AdvantageRows, SampledRow
    from ...learn.sft import SftResult
    from ...models.rows import TrainingRow

_OF_SFT = ("epochs", "batch_rows", "share", "max_tokens", "max_rows", "held_out", "final_line", "calculator")
_OF_NPG = ("kl", "start")
_OF_GRPO = ("steps", "questions", "completions", "completion_tokens")
# Options that a method does not use.
_UNUSED = {
    "sft": (*_OF_NPG, *_OF_GRPO),
    "npg": (*_OF_SFT, *_OF_GRPO, "learning_rate"),
    "grpo": (*_OF_SFT, *_OF_NPG, "micro_rows", "bf16"),
}

_ROLLOUT_DEFAULTS = ", ".join(
    f"--{name.replace('_', '-')} {value}" for name, value in ROLLOUT_DEFAULTS.items()
)

app = typer.Typer()


def _help(text: str, field: str) -> str:
    """Help of an option whose default is that of the recipe's field."""
    lora, tinylora = (f"{getattr(RECIPES[kind], field):,}" for kind in KINDS)
    return f"{text} Default: {lora}" + ("." if lora == tinylora else f"; {tinylora} for tinylora.")


@app.command(
    epilog=options.example(
        "train smollm2-135m --data gsm8k-train.jsonl --output my-lora",
        "train smollm2-135m --data gsm8k-train.jsonl --output my-tinylora --kind tinylora",
        "train smollm2-135m --data gsm8k-train.jsonl --output my-loras --rank 1,2,3,4",
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
    rank: Annotated[
        str | None,
        typer.Option(help=_help("Rank of the factors. Several, such as 1,2,4, are compared.", "rank")),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Method: sft on solutions, grpo on answers, or npg: one natural policy gradient step on "
            "right and wrong rollouts, for tinylora."
        ),
    ] = "sft",
    numbers: Annotated[
        int | None, typer.Option(min=1, help=_help("Trained numbers of a TinyLoRA.", "numbers"))
    ] = None,
    alpha: Annotated[
        int | None, typer.Option(min=1, help=_help("LoRA alpha; the scale is alpha / rank.", "alpha"))
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help=_help("Peak learning rate.", "learning_rate"))
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help=_help("Passes over the rows.", "epochs"))] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help=_help("Rows per step.", "batch_rows"))] = None,
    micro_rows: Annotated[
        int | None, typer.Option(min=1, help=_help("Rows per forward pass.", "micro_rows"))
    ] = None,
    share: Annotated[float | None, typer.Option(help=_help("Fraction of the rows to use.", "share"))] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help=_help("Drop rows with more tokens.", "max_tokens"))
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help=_help("Maximum rows to train on.", "max_rows"))
    ] = None,
    held_out: Annotated[
        int | None, typer.Option(min=1, help=_help("Number of held-out rows to measure on.", "held_out"))
    ] = None,
    final_line: Annotated[
        bool, typer.Option(help="With --data: learn a last line with the final answer after each solution.")
    ] = True,
    calculator: Annotated[
        bool,
        typer.Option(help="With --data: do not learn results of equations, which the calculator completes."),
    ] = False,
    bf16: Annotated[
        bool | None,
        typer.Option(
            help="Multiply in bfloat16; not with grpo. Default: where the processor does so itself."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help=_help("Random seed.", "seed"))] = None,
    basis: options.Basis = None,
    kl: Annotated[float, typer.Option(help="With npg: KL divergence of the step, in nats per token.")] = 0.01,
    start: Annotated[
        str | None,
        typer.Option(
            help="With npg: adapter over the same basis, or its code, to start from. The rollouts must be "
            "its own."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="With grpo: number of steps.")] = 50,
    questions: Annotated[int, typer.Option(min=1, help="With grpo: questions per step.")] = 4,
    completions: Annotated[int, typer.Option(min=2, help="With grpo: completions per question.")] = 8,
    completion_tokens: Annotated[
        int, typer.Option(min=1, help="With grpo: maximum tokens of a completion.")
    ] = 128,
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help=_help("CPU threads.", "threads"))
    ] = None,
    revision: options.Revision = None,
    as_json: options.Json = False,
) -> None:
    """Train an adapter with gradients, by PEFT on a CPU.

    The defaults are the published LoRA recipe, and for tinylora the settings of the shipped adapter
    smollm2-135m-gsm8k-13, but for its numbers of rows. Requires the extra `train`.
    """
    from ...files.processors import multiplies_bf16
    from ...learn.grpo import GrpoSettings
    from ...learn.recipe import Recipe
    from ...learn.rollout_rows import read_advantage_rows
    from ...models.fetch import fetch
    from ...models.rows import read_rows

    _check_method(ctx, method)
    source = _training_file(data, rollouts, method)
    defaults = {"bf16": method != "grpo" and multiplies_bf16()} | (ROLLOUT_DEFAULTS if rollouts else {})
    recipe = replace(RECIPES.get(kind, Recipe()), **defaults)
    found = _read_basis(base, basis, kind, {"--rank": rank, "--numbers": numbers}) if basis else None
    if found:
        origin = found.origin
        recipe = replace(recipe, rank=origin.rank, numbers=origin.numbers, projection_seed=origin.seed)
    ranks = _parse_ranks(rank) if rank else [recipe.rank]
    recipes = [  # options match the fields of Recipe by name
        replace(recipe, **options.matching_options(ctx, Recipe) | {"rank": number}) for number in ranks
    ]
    if method != "sft" and len(recipes) > 1:
        raise typer.BadParameter(f"--rank {rank}: --method {method} takes one rank")
    folders = [output / f"rank-{number}" for number in ranks] if len(ranks) > 1 else [output]
    _check_folders(folders)
    path = fetch(base, revision=revision, kind="base")
    if output.resolve() == (path.parent if path.is_file() else path).resolve():
        raise typer.BadParameter(f"--output {output}: it is the folder of the base")
    if method == "grpo":
        rows = read_rows(source, ("answer",))
        sampling = GrpoSettings(steps, questions, completions, completion_tokens)
        show_fields(
            as_json, _run_grpo(_job(base, path, output, recipes[0], found), rows, sampling, source.name)
        )
        return
    if method == "npg":
        sampled = read_advantage_rows(source, options.resolve_adapter(start) if start else None)
        job = _job(base, path, output, replace(recipes[0], calculator=sampled.calculator), found)
        _show_npg(as_json, _run_npg(job, sampled, kl, source.name))
        return
    training = _read_training_data(source, recipes[0], sampled=source == rollouts)
    results = {}
    for folder, recipe in zip(folders, recipes, strict=True):
        job = _job(base, path, folder, replace(recipe, **training.recipe), found)
        results[recipe.rank] = _run_sft(job, training)
    facts = {f"rank {number}": _sft_facts(result) for number, result in results.items()}
    show_result(as_json, facts, lambda: _sft_table(results))


@dataclass(frozen=True)
class _TrainingData:
    """Rows to train on and held-out ones.

    Attributes:
        rows: rows to train on.
        held_out: held-out rows.
        name: what the card calls them.
        recipe: fields of the recipe that they determine.
    """

    rows: "Sequence[TrainingRow | SampledRow]"
    held_out: "Sequence[TrainingRow | SampledRow]"
    name: str
    recipe: dict[str, Any]


def _check_method(ctx: typer.Context, method: str) -> None:
    """Refuse an unknown method, and options that would have no effect."""
    from ...learn.recipe import METHODS

    if method not in METHODS:
        raise typer.BadParameter(f"--method {method!r}: must be one of {', '.join(METHODS)}")
    given = ctx.params
    if method == "npg" and given["kind"] != "tinylora":
        raise typer.BadParameter("--method npg: it is for --kind tinylora")
    options.refuse_given(ctx, _UNUSED[method], f"it is not for --method {method}")
    if given["rollouts"]:
        options.refuse_given(ctx, ("final_line", "calculator"), "it is for --data")
    if given["kind"] in KINDS:
        other_kind = "alpha" if given["kind"] == "tinylora" else "numbers"
        options.refuse_given(ctx, (other_kind,), f"it is not for --kind {given['kind']}")
    if not 1e-6 <= given["kl"] <= 1:
        raise typer.BadParameter(f"--kl {given['kl']}: must be from 0.000001 to 1")
    if given["start"] and Path(given["start"]).resolve() == given["output"].resolve():
        raise typer.BadParameter(f"--output {given['output']}: it is the folder of --start")


def _check_folders(folders: "Sequence[Path]") -> None:
    """Refuse folders that an adapter cannot be written to, or whose README.md its card would replace."""
    from ...files.output import check_folder
    from ...learn.cards import check_card

    for folder in folders:
        check_folder(folder)
        check_card(folder)


def _training_file(data: Path | None, rollouts: Path | None, method: str) -> Path:
    """The one that is given."""
    if rollouts and method == "grpo":
        raise typer.BadParameter(f"--rollouts {rollouts}: it is for --method sft or npg")
    if data and method == "npg":
        raise typer.BadParameter(f"--data {data}: --method npg takes --rollouts")
    if data and rollouts:
        raise typer.BadParameter(f"--data {data} and --rollouts {rollouts} exclude each other")
    if file := data or rollouts:
        return file
    raise typer.BadParameter("give --data or --rollouts")


def _read_training_data(file: Path, recipe: "Recipe", *, sampled: bool) -> _TrainingData:
    """Read worked solutions, or rollouts if they are `sampled`."""
    from ...learn.rollout_rows import read_rollout_rows
    from ...models.rows import read_rows, split_rows

    if not sampled:
        return _TrainingData(*split_rows(read_rows(file), recipe.held_out, recipe.seed), file.name, {})
    found = read_rollout_rows(file, recipe.held_out, recipe.seed)
    name = f"{file.name}, right solutions that were sampled, weighted by their advantage"
    determined = {"final_line": False, "calculator": found.calculator}
    return _TrainingData(found.training, found.held_out, name, determined)


def _parse_ranks(text: str) -> list[int]:
    words = text.split(",")
    ranks = [int(word) for word in words if word.strip().isdecimal()]
    if len(set(ranks)) != len(words):
        raise typer.BadParameter(
            f"--rank {text!r}: must be an integer, or several that differ, such as 1,2,4"
        )
    return ranks


def _read_basis(base: str, file: Path, kind: str, excluded: dict[str, Any]) -> "Basis":
    """Read a file of adapter basis, which determines what the excluded options say."""
    from ...workflows.adapter_resolver import resolve_basis

    if kind != "tinylora":
        raise typer.BadParameter(f"--basis {file}: it is for --kind tinylora")
    if given := [name for name, value in excluded.items() if value is not None]:
        raise typer.BadParameter(f"--basis {file}: it determines {' and '.join(given)}")
    return resolve_basis(base, file)


def _job(base: str, path: Path, out: Path, recipe: "Recipe", basis: "Basis | None") -> "TrainingJob":
    from ...learn.job import TrainingJob
    from ...workflows.adapter_resolver import catalogue_name, hub_id_of, resolve_basis

    name = catalogue_name(base)
    if recipe.kind == "tinylora" and basis is None:
        settings = {"rank": recipe.rank, "numbers": recipe.numbers, "seed": recipe.projection_seed}
        with progress_bar("basis") as progress:
            basis = resolve_basis(base, settings=settings, progress=progress)
    return TrainingJob(path, out, recipe, basis, hub_id_of(name) if name else options.provenance_name(base))


def _run_sft(job: "TrainingJob", data: _TrainingData) -> "SftResult":
    from ...learn.cards import sft_card, write_card
    from ...learn.sft import train_sft

    with stage_bars() as stage:
        result = train_sft(job, data.rows, data.held_out, stage)
    write_card(job.out, sft_card(job, result, command_line(), data.name))
    return result


def _sft_facts(result: "SftResult") -> dict[str, Any]:
    return {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "rows": result.rows,
        "steps": result.steps,
        "train_s": result.train_s,
        "validation": list(result.validation),
        "loss_before": result.held_out.loss_before,
        "loss_after": result.held_out.loss_after,
        "difference": interval_json(result.held_out.difference),
    }


def _sft_table(results: "dict[int, SftResult]") -> Table:
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


def _run_npg(job: "TrainingJob", sampled: "AdvantageRows", kl: float, data: str) -> "NpgResult":
    from ...learn.cards import npg_card, write_card
    from ...learn.npg import train_npg

    with progress_bar("gradients") as progress:
        result = train_npg(job, sampled, kl, progress)
    write_card(job.out, npg_card(job, result, kl, command_line(), data))
    return result


def _show_npg(as_json: bool, result: "NpgResult") -> None:
    facts = {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "questions": result.questions,
        "solutions": result.solutions,
        "seconds": result.seconds,
        "damping": result.damping,
        "gain": interval_json(result.gain),
    }
    rows = {
        "output": str(result.folder),
        "trained numbers": f"{result.trained_numbers:,}",
        "questions asked": f"{result.questions:,}",
        "solutions": f"{result.solutions:,}, to those with right and wrong ones",
        "minutes": f"{result.seconds / 60:.1f}",
        "expected gain, points": f"{result.gain.text(1, 100)}, to first order, by cross-validation",
    }
    show_fields(as_json, facts, rows)


def _run_grpo(
    job: "TrainingJob", rows: "list[TrainingRow]", sampling: "GrpoSettings", data: str
) -> dict[str, Any]:
    from ...learn.cards import grpo_card, write_card
    from ...learn.grpo import train_grpo

    with progress_bar("grpo") as progress:
        result = train_grpo(job, rows, sampling, progress)
    write_card(job.out, grpo_card(job, result, sampling, command_line(), data))
    return {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "steps": len(result.rewards),
        "reward_first": result.first_mean,
        "reward_last": result.last_mean,
        "seconds": result.seconds,
        "real_run_hours": result.real_run_hours,
    }


@app.command(
    epilog=options.example(
        "distill questions.jsonl --endpoint http://127.0.0.1:8080/v1 --model teacher --output solutions.jsonl"
    )
)
def distill(
    data: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help="Questions: JSON lines with question, answer.")
    ],
    endpoint: Annotated[str, typer.Option(help="URL of an OpenAI-compatible API, up to /v1.")],
    model: Annotated[str, typer.Option(help="Model name of the teacher at the endpoint.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Training rows to write. An interrupted run resumes there.")
    ],
    key_file: Annotated[Path | None, typer.Option(help="File with the API key.")] = None,
    system: options.System = None,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature.")] = 0.0,
    max_tokens: options.MaxTokens = 512,
    as_json: options.Json = False,
) -> None:
    """Have a teacher model solve questions.

    Only solutions with the right final answer are kept.
    """
    from ...files.output import check_target
    from ...learn.distill import PROMPT, Teacher, distill_solutions, read_key, wrong_file
    from ...models.rows import read_rows

    for file in (output, wrong_file(output)):
        check_target(file, data, *filter(None, (key_file,)))
    rows = read_rows(data, ("answer",))
    key = read_key(key_file) if key_file else None
    teacher = Teacher(endpoint, model, key, system or PROMPT, temperature, max_tokens)
    with progress_bar("distill") as progress:
        result = distill_solutions(rows, teacher, output, progress)
    show_fields(as_json, {"output": str(output), "teacher": model, **vars(result)})
