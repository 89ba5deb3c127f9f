"""Supervised training of a small adapter with PEFT: a few numbers over a frozen base, on a CPU.

The adapter is a LoRA, or TinyLoRA (arXiv 2602.04118, "Learning to Reason in 13 Parameters"):
W' = W + B (sum_i v_i P_i) A, where B and A are the truncated SVD of the frozen W, the P_i are fixed random
r x r matrices, and only v, which all modules share, is trained.
"""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from ..errors import OptionError
from ..files.progress import Stage, no_progress
from ..models.rows import TrainingRow
from ..stats.interval import Interval
from .base_model import attach_adapter, trained_numbers
from .examples import Example, batches, encode_example, held_out_losses, row_losses
from .job import TrainCheckpoint, TrainingJob, TrainState
from .recipe import Recipe
from .tokenizer import Tokenizer, open_tokenizer

_VALIDATION_ROWS = 64  # the first held-out rows, on which the loss is measured after each epoch
CHECKPOINT = ".checkpoint.pt"

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class HeldOutLoss:
    """The loss on held-out rows before and after training; each tuple has one entry per question."""

    tokens: tuple[int, ...]  # of the answers
    before: tuple[float, ...]  # nats, summed over the answers
    after: tuple[float, ...]

    @property
    def loss_before(self) -> float:
        """Nats per token, of the base."""
        return sum(self.before) / sum(self.tokens)

    @property
    def loss_after(self) -> float:
        """Nats per token, with the adapter."""
        return sum(self.after) / sum(self.tokens)

    @property
    def difference(self) -> Interval:
        """The change in nats per token, with its paired bootstrap interval over questions."""
        import numpy as np

        from ..stats.bootstrap import mean_interval

        return mean_interval(np.subtract(self.after, self.before), np.asarray(self.tokens, float))


@dataclass(frozen=True)
class SftResult:
    """The outcome of a supervised run."""

    trained_numbers: int
    rows: int
    tokens: int  # of the training rows over all epochs, prompts included
    steps: int
    train_s: float  # since the last resume
    validation: tuple[float, ...]  # loss after each epoch, in nats per token
    held_out: HeldOutLoss


def train_sft(
    job: TrainingJob,
    training: Sequence[TrainingRow],
    held_out: Sequence[TrainingRow],
    stage: Stage = lambda name: no_progress,
) -> SftResult:
    """Train an adapter on worked solutions, and save it.

    Args:
        job: base, recipe and output folder.
        training: rows to train on; the recipe may drop some of them.
        held_out: rows on which the loss is measured before and after training.
        stage: starts the progress of a stage.

    Raises:
        FileError: the base cannot be loaded.
        OutputError: the output folder cannot be written.
        ThirteenError: all training rows are too long, the loss is not finite, or the checkpoint belongs to
            another run.
    """
    with open_tokenizer(job.base) as tokenizer:
        examples = _training_examples(tokenizer, training, job.recipe)
        held = [_encode(tokenizer, row, job.recipe) for row in held_out]
        template = tokenizer.encoder.template_source
    model = job.load()
    adapted = attach_adapter(model, job.recipe, job.basis)
    loss = partial(held_out_losses, model, bf16=job.recipe.bf16)
    before = loss(held, progress=stage("held out, before"))
    identities = [[example.identity for example in part] for part in (examples, held)]
    run = job.run_id(template, identities)
    checkpoint = TrainCheckpoint(job.out / CHECKPOINT, run)
    progress = stage("train")

    def after_step(state: TrainState, steps: int) -> None:
        if state.step % (steps // job.recipe.epochs) == 0:  # the end of an epoch
            losses = loss(held[:_VALIDATION_ROWS])
            state.validation.append(sum(losses) / sum(one.answer_tokens for one in held[: len(losses)]))
        progress(state.step, steps)

    start = time.monotonic()
    state = fit_adapter(model, examples, job.recipe, checkpoint, after_step)
    train_s = time.monotonic() - start
    after = loss(held, progress=stage("held out, after"))
    job.save(adapted)
    return SftResult(
        trained_numbers=trained_numbers(model),
        rows=len(examples),
        tokens=job.recipe.epochs * sum(len(example.ids) for example in examples),
        steps=state.step,
        train_s=train_s,
        validation=tuple(state.validation),
        held_out=HeldOutLoss(
            sum_by_question(held_out, [example.answer_tokens for example in held]),
            sum_by_question(held_out, before),
            sum_by_question(held_out, after),
        ),
    )


def sum_by_question(rows: Sequence[TrainingRow], values: Sequence[Number]) -> tuple[Number, ...]:
    """Sum the values of the rows of each question: solutions to one question are not independent."""
    sums: dict[str, Number] = {}
    for row, value in zip(rows, values, strict=True):
        sums[row.question] = sums.get(row.question, 0) + value
    return tuple(sums.values())


def _training_examples(tokenizer: Tokenizer, rows: Sequence[TrainingRow], recipe: Recipe) -> list[Example]:
    """Tokenize rows without those that are too long, up to the recipe's maximum."""
    encoded = (_encode(tokenizer, row, recipe) for row in rows)
    limit = recipe.max_tokens + tokenizer.worked_tokens
    short = (example for example in encoded if len(example.ids) <= limit)
    examples = list(islice(short, recipe.max_rows))
    if not examples:
        raise OptionError("max_tokens", f"all {len(rows)} training rows are longer", recipe.max_tokens)
    return examples


def _encode(tokenizer: Tokenizer, row: TrainingRow, recipe: Recipe) -> Example:
    return encode_example(tokenizer, row, final_line=recipe.final_line, calculator=recipe.calculator)


def fit_adapter(
    model: Any,
    examples: Sequence[Example],
    recipe: Recipe,
    checkpoint: TrainCheckpoint | None = None,
    after_step: Callable[[TrainState, int], None] = lambda state, steps: None,
) -> TrainState:
    """Train the parameters that require a gradient: Adam, linear warm-up, then cosine decay to zero.

    Args:
        model: transformers model with an adapter.
        examples: training set.
        recipe: hyperparameters.
        checkpoint: file to resume from and to save the state to.
        after_step: called with the state, before it is saved, and the number of all steps.

    Returns:
        The final state, with the loss of each step in nats per token.

    Raises:
        ThirteenError: the loss is not finite, or the checkpoint belongs to another run.
        OutputError: the checkpoint cannot be written.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)
    seeds = range(recipe.seed, recipe.seed + recipe.epochs)
    schedule = [batch for seed in seeds for batch in batches(examples, recipe.batch_rows, seed)]
    steps = len(schedule)
    state = TrainState(0, [], [], trained, optimizer.state_dict())
    if checkpoint and (saved := checkpoint.load()):
        state = _restored(saved, trained, optimizer)
    for batch in schedule[state.step :]:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _lr_factor(state.step, steps, recipe.warmup)
        state.losses.append(_train_step(model, batch, recipe, optimizer))
        state.step += 1
        after_step(state, steps)
        if checkpoint and (state.step == steps or state.step % checkpoint.every == 0):
            state.optimizer = optimizer.state_dict()
            checkpoint.save(state)
    return state


def _restored(saved: TrainState, trained: list[Any], optimizer: Any) -> TrainState:
    """Load a saved state into the parameters and the optimizer."""
    import torch

    with torch.no_grad():
        for parameter, values in zip(trained, saved.trained, strict=True):
            parameter.copy_(values)
    optimizer.load_state_dict(saved.optimizer)
    saved.trained = trained
    return saved


def _lr_factor(step: int, steps: int, warmup: float) -> float:
    rise = (step + 1) / max(1, round(steps * warmup))
    return min(rise, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def _train_step(model: Any, batch: Sequence[Example], recipe: Recipe, optimizer: Any) -> float:
    """Take one step on `batch`, with gradients accumulated over micro-batches; returns the loss."""
    optimizer.zero_grad()
    tokens, total = sum(example.answer_tokens for example in batch), 0.0
    for start in range(0, len(batch), recipe.micro_rows):
        part = batch[start : start + recipe.micro_rows]
        loss = row_losses(model, part, bf16=recipe.bf16).sum() / tokens
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        total += loss.item()
    if not math.isfinite(total):
        raise OptionError("learning_rate", f"the loss became {total}: lower it", recipe.learning_rate)
    optimizer.step()
    return total
