"""Reinforcement by one natural policy gradient step on rollouts; see natural_gradient.py for the method."""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files.progress import Progress, no_progress
from ...stats.interval import Interval
from .attach import attach_adapter
from .examples import encode_sampled
from .job import TrainingJob
from .natural_gradient import SampledScores, natural_step
from .resume import ScoreState, TrainCheckpoint
from .rollout_rows import SampledRow
from .solution_scores import solution_scores

_CHECKPOINT = ".scores.pt"


@dataclass(frozen=True)
class NpgResult:
    """The outcome of a run.

    Attributes:
        folder: PEFT folder of the adapter.
        trained_numbers: number of trained numbers.
        questions: questions whose solutions were used.
        solutions: their number.
        seconds: since the last resume.
        damping: of the Fisher matrix, as a fraction of its largest eigenvalue.
        gain: the change of the fraction of right solutions, sampled as the rollouts were, to first order, of
            questions that were left out of the step.
    """

    folder: Path
    trained_numbers: int
    questions: int
    solutions: int
    seconds: float
    damping: float
    gain: Interval


def train_npg(
    job: TrainingJob, rows: Sequence[SampledRow], kl: float, progress: Progress = no_progress
) -> NpgResult:
    """Compute the step of the trained numbers that the rollouts suggest, and save it as an adapter.

    Args:
        job: base, recipe with kind `tinylora`, output folder and basis, which must be given.
        rows: right and wrong solutions of the base, weighted by their advantage.
        kl: divergence of the adapted model from the base, in nats per token.
        progress: called with the number of solutions done and of all solutions.

    Raises:
        CheckpointError: the base cannot be loaded, or a solution was sampled with another tokenizer.
        OutputError: the output folder cannot be written.
        ThirteenError: a gradient is not finite, or the checkpoint belongs to another run.
        AdapterError: the basis is of another base.
        ValueError: the job has no basis.
    """
    if not job.basis:
        raise ValueError("the job has no basis")
    start = time.monotonic()
    model, tokenizer = job.load()
    examples = [encode_sampled(tokenizer, row, calculator=job.recipe.calculator) for row in rows]
    run = job.run_id([example.ids for example in examples], [example.weight for example in examples])
    checkpoint = TrainCheckpoint(job.out / _CHECKPOINT, run, ScoreState)
    scores = solution_scores(
        model,
        job.basis,
        examples,
        batch_rows=job.recipe.micro_rows,
        bf16=job.recipe.bf16,
        checkpoint=checkpoint,
        progress=progress,
    )
    sampled = SampledScores(
        scores,
        np.array([row.weight for row in rows]),
        np.array([row.question for row in rows]),
        np.array([float(example.answer_tokens) for example in examples]),
    )
    step = natural_step(sampled, kl, job.recipe.seed)
    adapted = attach_adapter(model, job.recipe, job.basis)
    _set_trained(model, step.numbers)
    job.save(adapted)
    checkpoint.path.unlink(missing_ok=True)
    return NpgResult(
        folder=job.out,
        trained_numbers=len(step.numbers),
        questions=len({row.question for row in rows}),
        solutions=len(rows),
        seconds=time.monotonic() - start,
        damping=step.damping,
        gain=step.gain,
    )


def _set_trained(model: Any, numbers: Any) -> None:
    """Set the trained parameters to `numbers`, in their order."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parts = torch.split(torch.from_numpy(numbers), [parameter.numel() for parameter in trained])
    with torch.no_grad():
        for parameter, part in zip(trained, parts, strict=True):
            parameter.copy_(part.reshape(parameter.shape))
