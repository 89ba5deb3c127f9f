"""Reinforcement by one natural policy gradient step on rollouts; see natural_gradient.py for the method."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..convert.adapter.tinylora_folder import read_tinylora_numbers, write_tinylora_folder
from ..files.progress import Progress, no_progress
from ..stats.interval import Interval
from .examples import encode_sampled
from .job import ScoreState, TrainCheckpoint, TrainingJob
from .natural_gradient import SampledScores, natural_step
from .rollouts import AdvantageRows
from .solution_scores import solution_scores

_CHECKPOINT = ".scores.pt"


@dataclass(frozen=True)
class NpgResult:
    """The outcome of a run.

    Attributes:
        basis: id of its basis.
        trained_numbers: number of trained numbers.
        questions: questions asked.
        solutions: solutions to those of them that have right and wrong ones.
        seconds: since the last resume.
        damping: of the Fisher matrix, as a fraction of its largest eigenvalue.
        gain: see NaturalStep.
        start: PEFT folder of the adapter that it started from; None for the base.
        temperature: at which the solutions were sampled; gradient, divergence and gain are those there.
    """

    basis: str
    trained_numbers: int
    questions: int
    solutions: int
    seconds: float
    damping: float
    gain: Interval
    start: Path | None
    temperature: float


def train_npg(
    job: TrainingJob, sampled: AdvantageRows, kl: float, progress: Progress = no_progress
) -> NpgResult:
    """Compute the step of the trained numbers that the rollouts suggest, and save it as an adapter.

    The gradients of the solutions take nearly all of the time. They stay in the folder for a run with another
    divergence.

    Args:
        job: base, recipe with kind `tinylora`, output folder and basis, which must be given.
        sampled: right and wrong solutions. The step starts from the adapter that sampled them.
        kl: divergence of the adapted model from the one that sampled them, in nats per token.
        progress: called with the number of solutions done and of all solutions.

    Raises:
        CheckpointError: the base cannot be loaded, or a solution was sampled with another tokenizer.
        OutputError: the output folder cannot be written.
        ThirteenError: a gradient is not finite, or the checkpoint belongs to another run.
        AdapterError: the basis is of another base, or not that of the adapter.
        ValueError: the job has no basis.
    """
    if not job.basis:
        raise ValueError("the job has no basis")
    began, rows = time.monotonic(), sampled.rows
    start = read_tinylora_numbers(sampled.adapter, job.basis) if sampled.adapter else None
    model, tokenizer = job.load()
    examples = [encode_sampled(tokenizer, row, calculator=job.recipe.calculator) for row in rows]
    identities = [example.identity for example in examples]
    numbers = None if start is None else start.tolist()
    run = job.run_id(tokenizer.chat_template, identities, numbers, sampled.temperature)
    checkpoint = TrainCheckpoint(job.out / _CHECKPOINT, run, ScoreState)
    scores = solution_scores(
        model,
        job.basis,
        examples,
        start=start,
        batch_rows=job.recipe.micro_rows,
        bf16=job.recipe.bf16,
        temperature=sampled.temperature,
        checkpoint=checkpoint,
        progress=progress,
    )
    solutions = SampledScores(
        scores=scores,
        advantages=np.array([row.weight for row in rows]),
        questions=np.array([row.question for row in rows]),
        tokens=np.array([float(example.answer_tokens) for example in examples]),
        asked=sampled.questions,
    )
    step = natural_step(solutions, kl, job.recipe.seed)
    adapted = step.numbers.astype(np.float32) + (0 if start is None else start)
    write_tinylora_folder(job.basis, adapted, job.out, job.base_id or str(job.base))
    return NpgResult(
        basis=job.basis.origin.id,
        trained_numbers=len(step.numbers),
        questions=sampled.questions,
        solutions=len(rows),
        seconds=time.monotonic() - began,
        damping=step.damping,
        gain=step.gain,
        start=sampled.adapter,
        temperature=sampled.temperature,
    )
