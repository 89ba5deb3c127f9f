"""Runs of `thirteen train`: training, the card, and what is shown."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import command_line, interval_json, progress_bar, show_fields, stage_bars

if TYPE_CHECKING:
    from ...learn.job import TrainingJob
    from ...learn.rollouts import SampledRow
    from ...models.rows import TrainingRow

    Rows = Sequence[TrainingRow | SampledRow]


def show_sft(job: "TrainingJob", data: Path | None, rollouts: Path | None, as_json: bool) -> None:
    """Train on the worked solutions of `data`, or on the right ones of `rollouts`."""
    from ...learn.cards import sft_card, write_card
    from ...learn.sft import train_sft

    job, rows, held_out, name = _read_rollouts(job, rollouts) if rollouts else _read_data(job, data)
    with stage_bars() as stage:
        result = train_sft(job, rows, held_out, stage)
    write_card(job.out, sft_card(job, result, command_line(), name))
    held = result.held_out
    facts = {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "rows": result.rows,
        "steps": result.steps,
        "train_s": result.train_s,
        "validation": list(result.validation),
        "loss_before": held.loss_before,
        "loss_after": held.loss_after,
        "difference": interval_json(held.difference),
    }
    _show(as_json, facts, {"difference": f"{held.difference.text(4)} nats per token (95 %)"})


def show_npg(job: "TrainingJob", rollouts: Path, start: Path | None, kl: float, as_json: bool) -> None:
    """Take one natural policy gradient step on rollouts."""
    from ...learn.cards import npg_card, write_card
    from ...learn.npg import train_npg
    from ...learn.rollouts import read_advantage_rows

    sampled = read_advantage_rows(rollouts, start)
    job = replace(job, recipe=replace(job.recipe, calculator=sampled.calculator))
    with progress_bar("gradients") as progress:
        result = train_npg(job, sampled, kl, progress)
    write_card(job.out, npg_card(job, result, kl, command_line(), rollouts.name))
    facts = {
        "output": str(result.folder),
        "trained_numbers": result.trained_numbers,
        "questions": result.questions,
        "solutions": result.solutions,
        "seconds": result.seconds,
        "damping": result.damping,
        "gain": interval_json(result.gain),
    }
    _show(as_json, facts, {"gain": f"{result.gain.text(1, 100)} points expected, to first order (95 %)"})


def _show(as_json: bool, facts: dict[str, Any], texts: dict[str, str]) -> None:
    show_fields(as_json, facts, {key.replace("_", " "): str(value) for key, value in (facts | texts).items()})


def _read_data(job: "TrainingJob", data: Path | None) -> "tuple[TrainingJob, Rows, Rows, str]":
    from ...models.rows import read_rows, split_rows

    assert data, "it or rollouts are given"
    return job, *split_rows(read_rows(data), job.recipe.held_out, job.recipe.seed), data.name


def _read_rollouts(job: "TrainingJob", rollouts: Path) -> "tuple[TrainingJob, Rows, Rows, str]":
    from ...learn.rollouts import read_rollout_rows

    found = read_rollout_rows(rollouts, job.recipe.held_out, job.recipe.seed)
    recipe = replace(job.recipe, final_line=False, calculator=found.calculator)
    name = f"{rollouts.name}, right solutions that were sampled, weighted by their advantage"
    return replace(job, recipe=recipe), found.training, found.held_out, name
