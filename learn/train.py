"""Supervised training of an adapter on worked solutions, by PEFT and the Trainer of transformers, on a CPU.

The adapter is a LoRA, or TinyLoRA (arXiv 2602.04118, "Learning to Reason in 13 Parameters"):
W' = W + B (sum_i v_i P_i) A, where B and A are the truncated SVD of the frozen W, the P_i are fixed random
r x r matrices, and only v, which all modules share, is trained.
"""

import hashlib
import json
import math
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, TinyLoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import Trainer, TrainingArguments

from ..convert.adapter.adapter import adapter_folder
from ..convert.adapter.basis import Basis
from ..convert.adapter.delta import CONFIG_FILE
from ..convert.source.checkpoint import open_checkpoint
from ..convert.source.families import CLASSES
from ..errors import OptionError
from ..files.journal import Journal
from ..files.progress import QUIET, Progress, Run, no_progress
from ..files.safetensors import write_tensors
from ..models.adapter import find_basis
from ..models.base import resolve_base
from ..models.rows import read_rows, split_rows
from ..stats.intervals import Interval, ratio_interval, sum_by_passage
from .base_model import load_base_model, open_tokenizer
from .cards import check_output, refuse_base_folder
from .examples import Example, encode_example, held_out_losses, row_losses
from .recipe import Recipe

STATE, CHECKPOINTS = ".train.jsonl", ".checkpoints"  # from which an interrupted run resumes
_MICRO_ROWS = 8  # in one forward pass: gradients are accumulated over a step
_STEPS_SAVED = 10  # between two checkpoints


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a run; losses are nats per token of the held-out answers."""

    base_id: str
    trained_numbers: int
    rows: int
    steps: int
    train_s: float  # since the last resume
    held_out: int  # questions
    loss_before: float
    loss_after: float
    difference: Interval  # paired, over questions


def train(base: str, data: Path, output: Path, recipe: Recipe, run: Run = QUIET) -> TrainResult:
    """Train an adapter on worked solutions, and save it.

    Args:
        base: catalogue name, hub id, folder of safetensors, or GGUF, which is dequantized.
        data: JSON lines with worked solutions.
        output: PEFT folder to write, which also holds the state of an interrupted run until remove_state().
        recipe: how to train.
        run: how it runs.

    Raises:
        ThirteenError: an input is invalid, the output cannot be written, or it belongs to another run.
    """
    training, held_rows = split_rows(read_rows(data), recipe.held_out, recipe.seed)
    check_output(output, STATE)
    found = resolve_base(base)
    refuse_base_folder(output, found.path)
    basis = None
    if recipe.kind == "tinylora":
        original = resolve_base(base, original=True)
        basis = find_basis(original, run, numbers=recipe.numbers, groups=recipe.groups)
    with open_tokenizer(found.path) as tokenizer:
        encode = partial(
            encode_example, tokenizer, final_line=recipe.final_line, calculator=recipe.calculator
        )
        limit = recipe.max_tokens + tokenizer.worked_tokens
        short = (example for example in map(encode, training) if len(example.ids) <= limit)
        examples = list(islice(short, recipe.max_rows))
        held = list(map(encode, held_rows))
    if not examples:
        raise OptionError("max_tokens", f"all {len(training)} training rows are longer", recipe.max_tokens)
    identity = {
        **asdict(recipe),
        "base_sha256": open_checkpoint(found.path).sha256(),
        "basis": basis and basis.origin.id,
        "rows_sha256": hashlib.sha256(repr((examples, held)).encode()).hexdigest(),
    }
    with Journal(output / STATE, identity, "train") as journal:
        model = load_base_model(found.path, threads=run.threads)
        torch.manual_seed(recipe.seed)
        adapted = attach_adapter(model, basis)
        losses = held_out_losses(model, held, recipe.bf16, run.stage("held out, before"))
        journal.record({})
        began = time.monotonic()
        steps = fit(adapted, examples, recipe, output / CHECKPOINTS, run.stage("train"))
        train_s = time.monotonic() - began
        losses_after = held_out_losses(model, held, recipe.bf16, run.stage("held out, after"))
        save_adapter(adapted, output, found.trained_id)
    counts = [float(one.answer_tokens) for one in held]
    # Solutions to one question are not independent.
    questions = np.array([one.question for one in held])
    sums = sum_by_passage(np.stack((counts, losses, losses_after), axis=1), questions)
    tokens, before, after = sums.T  # (questions,) each
    return TrainResult(
        base_id=found.trained_id,
        trained_numbers=adapted.get_nb_trainable_parameters()[0],
        rows=len(examples),
        steps=steps,
        train_s=train_s,
        held_out=len(tokens),
        loss_before=float(before.sum() / tokens.sum()),
        loss_after=float(after.sum() / tokens.sum()),
        difference=ratio_interval(np.stack((after - before, tokens), axis=1)),
    )


def remove_state(output: Path) -> None:
    """Remove what an interrupted run resumes from: the last step of a run."""
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    (output / STATE).unlink(missing_ok=True)


class _Trainer(Trainer):  # type: ignore[misc]
    """Computes the loss on the answers alone, without the logits of the prompts, and reports each step."""

    bf16 = False
    progress: Progress = staticmethod(no_progress)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Nats per token of all answers of a step."""
        assert not return_outputs
        return row_losses(model, inputs["examples"], bf16=self.bf16).sum() / num_items_in_batch

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Report a step, in place of the Trainer's own lines."""
        if not math.isfinite(loss := logs.get("loss", 0.0)):
            raise OptionError("learning_rate", f"the loss became {loss}: lower it", self.args.learning_rate)
        self.progress(self.state.global_step, self.state.max_steps)


def attach_adapter(model: Any, basis: Basis | None = None) -> Any:
    """Wrap a transformers model, in place, in a new adapter with the same output as before.

    It is a LoRA of rank 1, or a TinyLoRA with a basis.
    """
    shared = {"task_type": "CAUSAL_LM", "target_modules": CLASSES[type(model).__name__].targets}
    if basis is None:
        return get_peft_model(model, LoraConfig(r=1, lora_alpha=16, **shared))
    origin = basis.origin
    shape = {"r": origin.rank, "u": origin.numbers, "projection_seed": origin.seed, "weight_tying": 1.0}
    adapted = get_peft_model(model, TinyLoraConfig(save_projection=True, **shape, **shared))
    modules = dict(adapted.named_modules())
    for name, array in basis.tensors().items():
        module, _, part = name.rpartition(".")
        getattr(modules[module], part)["default"].data.copy_(torch.from_numpy(array))
    return adapted


def save_adapter(adapted: Any, folder: Path, base_id: str) -> None:
    """Save the adapter of a PEFT model. The same weights give the same files."""
    config = adapted.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_id, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True, default=sorted) + "\n"  # PEFT has sets
    # By default, PEFT asks the hub for the base.
    found = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    weights = {name: tensor.numpy() for name, tensor in found.items()}
    with adapter_folder(folder, {CONFIG_FILE: text.encode()}) as file:
        write_tensors(file, weights, {"format": "pt"})


def fit(adapted: Any, examples: Sequence[Example], recipe: Recipe, folder: Path, progress: Progress) -> int:
    """Train the adapter of a PEFT model; a run that was interrupted resumes from a folder of checkpoints.

    Adam, linear warm-up, then cosine decay to zero. Returns the number of steps.
    """
    micro_rows = math.gcd(recipe.batch_rows, _MICRO_ROWS)
    settings = TrainingArguments(
        output_dir=str(folder),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup,
        num_train_epochs=1,
        per_device_train_batch_size=micro_rows,
        gradient_accumulation_steps=recipe.batch_rows // micro_rows,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        seed=recipe.seed,
        use_cpu=True,
        remove_unused_columns=False,
        save_steps=_STEPS_SAVED,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
    )
    rows = [row for epoch in range(recipe.epochs) for row in _shuffled(examples, recipe, epoch)]
    trainer = _Trainer(adapted, settings, _collate, rows)
    trainer.bf16, trainer.progress = recipe.bf16, progress
    trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
    return int(trainer.state.global_step)


def _last_checkpoint(folder: Path) -> str | None:
    complete = folder.glob("checkpoint-*/trainer_state.json")  # the last file of each that is written
    steps = [int(file.parent.name.removeprefix("checkpoint-")) for file in complete]
    return str(folder / f"checkpoint-{max(steps)}") if steps else None


def _shuffled(examples: Sequence[Example], recipe: Recipe, epoch: int) -> list[Example]:
    """The order of an epoch, in which the rows of a step are of similar length."""
    # The Trainer's own way of grouping gives another order after a resume.
    rng, size = random.Random(recipe.seed + epoch), recipe.batch_rows  # noqa: S311
    shuffled = rng.sample(examples, len(examples))
    pools = (shuffled[i : i + 16 * size] for i in range(0, len(shuffled), 16 * size))
    by_length = [sorted(pool, key=lambda example: len(example.ids)) for pool in pools]
    batches = [pool[i : i + size] for pool in by_length for i in range(0, len(pool), size)]
    return [example for batch in rng.sample(batches, len(batches)) for example in batch]


def _collate(examples: Sequence[Example]) -> dict[str, Any]:
    labels = torch.full((len(examples), max(len(example.ids) for example in examples)), -100)
    for row, example in enumerate(examples):
        labels[row, example.loss_places] = 1
    return {"examples": [*examples], "labels": labels}
