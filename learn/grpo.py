"""Reinforcement learning of an adapter with trl's GRPO, rewarded for right answers, as in TinyLoRA's paper.

A real run needs a GPU: nearly all of the time goes into sampling, which is slow in PyTorch on a CPU. A run on
a CPU extrapolates how long a real run would take.
"""
# ruff: noqa: PLC0415 - torch, transformers and trl take seconds to import and come with an extra

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ThirteenError, install_hint
from ..files.output import output_errors
from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow, has_final_answer
from .attach import attach_adapter, trained_numbers
from .examples import prompt_text
from .job import TrainingJob
from .recipe import Recipe
from .resume import check_run

_CHECKPOINTS = ".checkpoints"
_CHECKPOINT_STEPS = 10
_GSM8K_ROWS, _PAPER_EPOCHS = 7_473, 3  # GSM8K's training set, with the paper's number of epochs


@dataclass(frozen=True)
class GrpoSettings:
    """Number of steps, questions per step, completions per question, and maximum tokens per completion."""

    steps: int = 50
    questions: int = 4
    completions: int = 8
    tokens: int = 128

    def __post_init__(self) -> None:
        if self.completions < 2 or min(self.steps, self.questions, self.tokens) < 1:
            raise ThirteenError("grpo: at least 2 completions, and 1 step, question and token")


@dataclass(frozen=True)
class GrpoResult:
    """The outcome of a GRPO run: the mean reward of each step, and the pace since the last resume."""

    folder: Path
    trained_numbers: int
    rewards: tuple[float, ...]
    seconds: float  # since the last resume
    completions: int  # since the last resume

    @property
    def real_run_hours(self) -> float | None:
        """Hours for the paper's three epochs of GSM8K at this pace, with eight completions per question.

        None if the run resumed after its last step, so that no pace was measured.
        """
        if not self.completions:
            return None
        return _GSM8K_ROWS * _PAPER_EPOCHS * 8 * self.seconds / self.completions / 3600

    @property
    def first_mean(self) -> float:
        """The mean reward of the first fifth of the steps."""
        part = self.rewards[: max(1, len(self.rewards) // 5)]
        return sum(part) / len(part)

    @property
    def last_mean(self) -> float:
        """The mean reward of the last fifth of the steps."""
        part = self.rewards[-max(1, len(self.rewards) // 5) :]
        return sum(part) / len(part)


def make_reward(end_tokens: Collection[int]) -> Callable[..., list[float]]:
    """The reward, as trl calls it: 1 for each completion that ended with a right final answer; otherwise 0.

    One that was cut off is wrong, as for `--method npg`: to end in time is part of the task.
    """

    def reward(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], answer: Sequence[str], **_: Any
    ) -> list[float]:
        triples = zip(completions, completion_ids, answer, strict=True)
        return [
            float(ids[-1] in end_tokens and has_final_answer(text, right)) for text, ids, right in triples
        ]

    return reward


def train_grpo(
    job: TrainingJob, rows: Sequence[TrainingRow], settings: GrpoSettings, progress: Progress = no_progress
) -> GrpoResult:
    """Train an adapter by rewards and save it.

    Args:
        job: base, recipe and output folder; GRPO ignores the recipe's fields on epochs, batches and rows.
        rows: questions with their answers.
        settings: number and size of the steps.
        progress: called with the number of steps done and of all steps.

    Raises:
        CheckpointError: the base cannot be loaded.
        OutputError: the output folder cannot be written.
        ThirteenError: the rows are fewer than the questions of a step, the `train` extra is not installed, or
            the checkpoints belong to another run.
    """
    if len(rows) < settings.questions:
        raise ThirteenError(f"--questions {settings.questions}: more than the {len(rows)} rows")
    model, tokenizer = job.load()
    try:
        from safetensors import SafetensorError
        from trl import GRPOConfig
    except ImportError as error:
        raise ThirteenError(f"grpo needs {error.name}: {install_hint('train')}") from None
    adapted = attach_adapter(model, job.recipe, job.basis)
    prompts = [{"prompt": trl_prompt(tokenizer, row.question), "answer": row.answer} for row in rows]
    folder = job.out / _CHECKPOINTS
    check_run(folder / "run", job.run_id(asdict(settings), [[row.question, row.answer] for row in rows]))
    config = GRPOConfig(str(folder), **_trl_settings(job.recipe, settings))
    trainer = _trainer(adapted, tokenizer, prompts, config, progress)
    done, checkpoint = _last_checkpoint(folder)
    start = time.monotonic()
    with output_errors(folder, SafetensorError):
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - start
    job.save(adapted)
    delete_checkpoints(folder)
    return GrpoResult(
        folder=job.out,
        trained_numbers=trained_numbers(adapted),
        rewards=tuple(entry["reward"] for entry in trainer.state.log_history if "reward" in entry),
        seconds=seconds,
        completions=(settings.steps - done) * settings.questions * settings.completions,
    )


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run, and then the file that says whose they are.

    Raises:
        OutputError: they cannot be deleted.
    """
    with output_errors(folder):
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        shutil.rmtree(folder)


def _last_checkpoint(folder: Path) -> tuple[int, str | None]:
    """The step and the folder of the last complete checkpoint; trl writes trainer_state.json last."""
    found = []
    for state in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            found.append((int(json.loads(state.read_bytes())["global_step"]), str(state.parent)))
        except (ValueError, TypeError, KeyError):
            continue  # truncated
    return max(found, default=(0, None))


def trl_prompt(tokenizer: Any, question: str) -> str:
    """The prompt without a begin-of-text token that the tokenizer adds, as it does when trl calls it."""
    text = prompt_text(tokenizer, question)
    adds_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens at which trl ends a completion."""
    ids = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ids if isinstance(ids, list) else [ids])}


def _trainer(
    adapted: Any, tokenizer: Any, prompts: list[dict[str, str]], config: Any, progress: Progress
) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOTrainer

    class ProgressCallback(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress(state.global_step, state.max_steps)

    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    trainer = GRPOTrainer(
        adapted,
        reward_funcs=make_reward(_end_tokens(adapted, tokenizer)),
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
        callbacks=[ProgressCallback()],
    )
    trainer.remove_callback(PrinterCallback)  # standard output is for results
    return trainer


def _trl_settings(recipe: Recipe, settings: GrpoSettings) -> dict[str, Any]:
    """The keyword arguments of trl's GRPOConfig."""
    import torch

    on_cpu = not torch.cuda.is_available()
    return {
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "gradient_checkpointing": False,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": settings.questions * settings.completions,
        "num_generations": settings.completions,
        "max_completion_length": settings.tokens,
        "max_steps": settings.steps,
        "temperature": 1.0,
        "beta": 0.0,
        "seed": recipe.seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": _CHECKPOINT_STEPS,
        "save_total_limit": 1,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
