"""Reinforcement learning of an adapter, as TinyLoRA's paper does it: GRPO by trl, rewarded for right answers.

Meant for a GPU: nearly all of its time goes into answers, which PyTorch writes slowly on a CPU. There it runs
too, and tells what a real run would cost at the pace it had.
"""
# ruff: noqa: PLC0415 - torch, transformers and trl take seconds to import and come with an extra

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...convert.adapter.basis import Basis
from ...errors import ThirteenError
from ...files.output import make_folder, output_errors
from ...files.progress import Progress, no_progress
from ...runtime.arithmetic.final_answer import final_answer, parse_number
from ..rows import TrainingRow
from .attach import attach_adapter, trained_numbers
from .base_model import load_base_model
from .recipe import Recipe
from .resume import check_run, run_id
from .train import base_sha256, save_adapter

_CHECKPOINTS = ".checkpoints"
_EVERY = 10  # steps between two of them
_REAL_ROWS, _REAL_EPOCHS = 7_473, 3  # GSM8K's training set, as the paper goes through it


@dataclass(frozen=True)
class Rollouts:
    """How a step is made: so many questions, so many answers to each, of so many tokens at most."""

    steps: int = 50
    questions: int = 4
    completions: int = 8
    tokens: int = 128

    def __post_init__(self) -> None:
        if self.completions < 2 or min(self.steps, self.questions, self.tokens) < 1:
            raise ThirteenError("grpo: at least 2 completions, and 1 step, question and token")


@dataclass(frozen=True)
class GrpoResult:
    """What a run made: the mean reward of each step, and its pace, by what this sitting took."""

    folder: Path
    trained_numbers: int
    rewards: tuple[float, ...]
    seconds: float  # of this sitting
    completions: int  # of this sitting

    @property
    def real_run_hours(self) -> float | None:
        """What the paper's three epochs of GSM8K would take at this pace, eight answers to a question.

        None if all steps had been done in an earlier sitting.
        """
        if not self.completions:
            return None
        return _REAL_ROWS * _REAL_EPOCHS * 8 * self.seconds / self.completions / 3600

    def mean(self, first: bool) -> float:
        """The mean reward of the first or the last fifth of the steps."""
        few = max(1, len(self.rewards) // 5)
        part = self.rewards[:few] if first else self.rewards[-few:]
        return sum(part) / len(part)


def reward(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 for each completion whose final answer is right, as answer.py reads it, else 0."""
    return [
        float((value := final_answer(text)) is not None and value == parse_number(wanted))
        for text, wanted in zip(completions, answer, strict=True)
    ]


def reinforce(  # noqa: PLR0913 - each is a thing of its own
    base: Path,
    rows: Sequence[TrainingRow],
    out: Path,
    *,
    recipe: Recipe,
    rollouts: Rollouts,
    basis: Basis | None = None,
    base_id: str = "",
    moved: Progress = no_progress,
) -> GrpoResult:
    """Train an adapter over `base` by rewards, and save it as a PEFT folder at `out`.

    A run that was interrupted goes on from its last checkpoint there.

    Args:
        base: a folder of safetensors or a GGUF.
        rows: questions and their answers.
        out: the folder to write, made if need be.
        recipe: the adapter, the learning rate and the seed.
        rollouts: how steps are made.
        basis: for TinyLoRA, its frozen factors; else PEFT's own.
        base_id: the base's name to record in the adapter, if not its path.
        moved: called with the steps done and in all.

    Raises:
        CheckpointError: the base cannot be loaded.
        OutputError: `out` cannot be written.
        ThirteenError: the extra is not installed, or the checkpoints in `out` are another run's.
    """
    model, tokenizer = load_base_model(base)
    make_folder(out)
    try:
        from trl import GRPOTrainer
    except ImportError as error:
        raise ThirteenError(f"grpo needs {error.name}: pip install 'thirteen[train]'") from None
    import torch
    from safetensors import SafetensorError
    from transformers import PrinterCallback

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    adapted = attach_adapter(model, recipe, basis)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    kept = out / _CHECKPOINTS
    told = [[row.question, row.answer] for row in rows]
    check_run(kept / "run", run_id(base_sha256(base), asdict(recipe), asdict(rollouts), told))
    trainer = GRPOTrainer(
        adapted,
        reward_funcs=reward,
        args=_config(kept, recipe, rollouts),
        train_dataset=_dataset(tokenizer, rows),
        processing_class=tokenizer,
        callbacks=[_told(moved)],
    )
    trainer.remove_callback(PrinterCallback)  # results alone go to standard output
    done, checkpoint = _last(kept)
    start = time.monotonic()
    with output_errors(kept, SafetensorError):
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - start
    rewards = tuple(entry["reward"] for entry in trainer.state.log_history if "reward" in entry)
    save_adapter(adapted, out, base_id or str(base))
    shutil.rmtree(kept)
    return GrpoResult(
        out,
        trained_numbers(model),
        rewards,
        seconds,
        (rollouts.steps - done) * rollouts.questions * rollouts.completions,
    )


def _last(kept: Path) -> tuple[int, str | None]:
    """The steps of the last whole checkpoint, and its folder; the trainer writes the state last."""
    found = []
    for state in kept.glob("checkpoint-*/trainer_state.json"):
        try:
            found.append((int(json.loads(state.read_bytes())["global_step"]), str(state.parent)))
        except (ValueError, TypeError, KeyError):
            continue  # cut short
    return max(found, default=(0, None))


def _dataset(tokenizer: Any, rows: Sequence[TrainingRow]) -> Any:
    from datasets import Dataset

    def prompt(row: TrainingRow) -> str:
        chat = [{"role": "user", "content": row.question}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    return Dataset.from_list([{"prompt": prompt(row), "answer": row.answer} for row in rows])


def _config(kept: Path, recipe: Recipe, rollouts: Rollouts) -> Any:
    import torch
    from trl import GRPOConfig

    on_cpu = not torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(kept),
        use_cpu=on_cpu,
        bf16=not on_cpu,
        gradient_checkpointing=False,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        per_device_train_batch_size=rollouts.questions * rollouts.completions,
        num_generations=rollouts.completions,
        max_completion_length=rollouts.tokens,
        max_steps=rollouts.steps,
        temperature=1.0,
        beta=0.0,
        seed=recipe.seed,
        logging_steps=1,
        save_strategy="steps",
        save_steps=_EVERY,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _told(moved: Progress) -> Any:
    from transformers import TrainerCallback

    class Told(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            moved(state.global_step, state.max_steps)

    return Told()
