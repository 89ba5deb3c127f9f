"""Supervised training of a small adapter with PEFT: a few numbers learned over a frozen base, on a CPU.

The adapter is a LoRA, or TinyLoRA (arXiv 2602.04118, "Learning to Reason in 13 Parameters"):
W' = W + B (sum_i v_i P_i) A with B and A from the truncated SVD of the frozen W, P_i fixed random r x r
matrices, and v, shared by all modules, the only thing trained.
"""
# ruff: noqa: PLC0415 - torch, transformers and peft take seconds to import and come with an extra

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...convert.adapter.basis import Basis
from ...errors import ThirteenError
from ...files.hashing import file_sha256
from ...files.output import make_folder, output_errors
from ...files.progress import Progress, Stage, no_progress
from ...stats.interval import Interval
from ..rows import TrainingRow
from .attach import attach_adapter, trained_numbers
from .base_model import load_base_model
from .examples import Example, batches, encode_example, held_out_losses, row_losses
from .recipe import Recipe
from .resume import TrainCheckpoint, TrainState, run_id

_BOOTSTRAPS = 10_000
_VALIDATED = 64  # held-out rows that the loss is measured on after each epoch
_EVERY = 10  # steps between two checkpoints
_CHECKPOINT = ".checkpoint.pt"


def _quiet(name: str) -> Progress:
    return lambda done, total: None


@dataclass(frozen=True)
class HeldOut:
    """The loss on rows never trained on, before and after; each tuple has one entry a row."""

    tokens: tuple[int, ...]  # of the answer
    before: tuple[float, ...]  # nats, summed over the answer
    after: tuple[float, ...]

    @property
    def loss_before(self) -> float:
        """Nats a token, of the base alone."""
        return sum(self.before) / sum(self.tokens)

    @property
    def loss_after(self) -> float:
        """Nats a token, with the adapter."""
        return sum(self.after) / sum(self.tokens)

    @property
    def difference(self) -> Interval:
        """The change in loss, in nats per token, with its paired bootstrap interval over rows."""
        import numpy as np

        from ...stats.bootstrap import mean_interval

        return mean_interval(np.subtract(self.after, self.before), np.asarray(self.tokens, float))


@dataclass(frozen=True)
class TrainResult:
    """What a training run made, and what it measurably changed."""

    folder: Path
    trained_numbers: int
    rows: int
    tokens: int  # of all training rows, prompts included
    steps: int
    train_s: float  # of this sitting
    validation: tuple[float, ...]  # loss after each epoch, in nats a token
    held_out: HeldOut


def fit_adapter(  # noqa: PLR0913 - what a run is made of
    model: Any,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    validate: Callable[[], float] | None = None,
    checkpoints: TrainCheckpoint | None = None,
    moved: Progress = no_progress,
) -> TrainState:
    """Train what requires a gradient: Adam, a short warm-up, then a cosine down to zero.

    Args:
        model: whose parameters.
        examples: to train on.
        recipe: how.
        validate: gives a loss, and is asked for it after each epoch.
        checkpoints: where the run's standing is kept, and taken up again.
        moved: called with the steps done and in all.

    Returns:
        The run's standing at its end, with the training loss at each step, in nats a token.

    Raises:
        ThirteenError: the loss is no longer a number; or the checkpoint is not this run's.
        OutputError: the checkpoint cannot be written.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)
    seeds = range(recipe.seed, recipe.seed + recipe.epochs)
    plan = [batch for seed in seeds for batch in batches(examples, recipe.batch_rows, seed)]
    factor, epoch = _cosine(len(plan), recipe.warmup), len(plan) // recipe.epochs
    standing = TrainState(0, [], [], trained, optimizer.state_dict())
    if checkpoints and (found := checkpoints.load()):
        standing = _taken_up(found, trained, optimizer)
    while standing.step < len(plan):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * factor(standing.step)
        standing.losses.append(_step(model, plan[standing.step], recipe, optimizer))
        standing.step += 1
        if validate and standing.step % epoch == 0:
            standing.validation.append(validate())
        if checkpoints and standing.step % checkpoints.every == 0:
            standing.optimizer = optimizer.state_dict()
            checkpoints.save(standing)
        moved(standing.step, len(plan))
    return standing


def _taken_up(found: TrainState, trained: Sequence[Any], optimizer: Any) -> TrainState:
    import torch

    with torch.no_grad():
        for parameter, saved in zip(trained, found.trained, strict=True):
            parameter.copy_(saved)
    optimizer.load_state_dict(found.optimizer)
    found.trained = list(trained)
    return found


def _step(model: Any, batch: Sequence[Example], recipe: Recipe, optimizer: Any) -> float:
    """One step on a batch, a few rows at a time; its loss."""
    optimizer.zero_grad()
    tokens, total = sum(example.answer_tokens for example in batch), 0.0
    for start in range(0, len(batch), recipe.micro_batch):
        loss = row_losses(model, batch[start : start + recipe.micro_batch]).sum() / tokens
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        total += loss.item()
    if not math.isfinite(total):
        raise ThirteenError(f"the loss became {total}: lower --learning-rate {recipe.learning_rate}")
    optimizer.step()
    return total


def _cosine(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    return factor


def train(  # noqa: PLR0913 - each is a thing of its own
    base: Path,
    training: Sequence[TrainingRow],
    held_out: Sequence[TrainingRow],
    out: Path,
    *,
    recipe: Recipe,
    basis: Basis | None = None,
    base_id: str = "",
    stage: Stage = _quiet,
) -> TrainResult:
    """Train an adapter over `base` and save it as a PEFT folder at `out`.

    A run that was interrupted goes on from its last checkpoint there.

    Args:
        base: A folder of safetensors or a GGUF; it is dequantized to float32.
        training: Rows to train on, in the order in which they are taken; those longer than
            `recipe.max_tokens` are left out.
        held_out: Rows never trained on, for the loss before and after.
        out: The folder to write, made if need be.
        recipe: Everything else that decides the result.
        basis: For TinyLoRA, its frozen factors; else PEFT's own.
        base_id: The base's name to record in the adapter, if not its path.
        stage: Starts the progress of a stage by its name.

    Raises:
        CheckpointError: The base cannot be loaded.
        OutputError: `out` cannot be written.
        ThirteenError: No training row is short enough, or the loss is no longer a number.
    """
    model, tokenizer = load_base_model(base)
    make_folder(out)
    import torch

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    examples = select_rows(tokenizer, training, recipe)
    held = [encode_example(tokenizer, row) for row in held_out]
    adapted = attach_adapter(model, recipe, basis)
    before = held_out_losses(model, held, moved=stage("held out, before"))
    ids = [[example.ids for example in part] for part in (examples, held)]
    run = run_id(base_sha256(base), asdict(recipe), ids)
    checkpoints = TrainCheckpoint(out / _CHECKPOINT, run, _EVERY)
    start = time.monotonic()
    standing = fit_adapter(
        model,
        examples,
        recipe,
        validate=lambda: _validated(model, held),
        checkpoints=checkpoints,
        moved=stage("train"),
    )
    train_s = time.monotonic() - start
    after = held_out_losses(model, held, moved=stage("held out, after"))
    save_adapter(adapted, out, base_id or str(base))
    checkpoints.remove()
    return TrainResult(
        folder=out,
        trained_numbers=trained_numbers(model),
        rows=len(examples),
        tokens=recipe.epochs * sum(len(example.ids) for example in examples),
        steps=standing.step,
        train_s=train_s,
        validation=tuple(standing.validation),
        held_out=HeldOut(tuple(example.answer_tokens for example in held), tuple(before), tuple(after)),
    )


def select_rows(tokenizer: Any, training: Sequence[TrainingRow], recipe: Recipe) -> list[Example]:
    """The rows that are trained on: the recipe's share of them, and of these the short ones.

    Raises:
        ThirteenError: there are none.
    """
    taken = training[: max(1, round(recipe.share * len(training)))]
    encoded = (encode_example(tokenizer, row) for row in taken)
    examples = [example for example in encoded if len(example.ids) <= recipe.max_tokens][: recipe.max_rows]
    if not examples:
        raise ThirteenError(f"--max-tokens {recipe.max_tokens}: all {len(taken)} training rows are longer")
    return examples


def _validated(model: Any, held: Sequence[Example]) -> float:
    few = held[:_VALIDATED]
    return sum(held_out_losses(model, few)) / sum(example.answer_tokens for example in few)


def base_sha256(base: Path) -> str:
    """The hashes of a base's weights."""
    files = [base] if base.is_file() else sorted(base.glob("*.safetensors"))
    return ", ".join(file_sha256(file) for file in files)


def save_adapter(adapted: Any, out: Path, base_id: str) -> None:
    """Save a PEFT model's adapter as a folder whose files are the same for the same weights.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors import SafetensorError

    with output_errors(out, SafetensorError):
        adapted.peft_config["default"].base_model_name_or_path = base_id
        adapted.save_pretrained(out, save_embedding_layers=False)  # else it asks the hub about the base
        path = out / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set, in no order
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
