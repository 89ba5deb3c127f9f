"""Reinforcement learning of a LoRA or TinyLoRA by trl's GRPO, rewarded for right final answers.

python lab/grpo.py BASE ROWS.jsonl FOLDER [--kind tinylora] [--steps 50] [--questions 4] [--completions 8]
    [--tokens 128] [--learning-rate 4e-5]

BASE is a folder of safetensors or a GGUF. It needs the extra `train` and trl. A real run needs a GPU: nearly
all of the time goes into sampling, which is slow in PyTorch on a CPU; there, the script tells how long three
epochs of GSM8K would take.
"""

import argparse
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from thirteen.learn.base_model import attach_adapter
from thirteen.learn.examples import prompt_text
from thirteen.learn.job import TrainingJob
from thirteen.learn.recipe import KINDS, RECIPES
from thirteen.models.rows import TrainingRow, read_rows
from thirteen.runtime.arithmetic.final_answer import final_answer, parse_number
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

_COMPLETIONS = 7_473 * 3 * 8  # three epochs of GSM8K's training set, eight completions to a question


def make_reward(end_tokens: Collection[int]) -> Callable[..., list[float]]:
    """The reward, as trl calls it: 1 for each completion that ended with a right final answer, else 0."""

    def reward(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], answer: Sequence[str], **_: Any
    ) -> list[float]:
        triples = zip(completions, completion_ids, answer, strict=True)
        return [
            float(ids[-1] in end_tokens and _has_final_answer(text, right)) for text, ids, right in triples
        ]

    return reward


def _has_final_answer(text: str, answer: str) -> bool:
    found = final_answer(text)
    return found is not None and found == parse_number(answer)


def train(job: TrainingJob, rows: Sequence[TrainingRow], options: argparse.Namespace) -> list[float]:
    """Train an adapter by rewards and save it; the mean reward of each step."""
    model, tokenizer = job.load()
    adapted = attach_adapter(model, job.recipe)
    prompts = [{"prompt": trl_prompt(tokenizer, row.question), "answer": row.answer} for row in rows]
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    ends = model.generation_config.eos_token_id
    with TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            adapted,
            reward_funcs=make_reward({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}),
            args=GRPOConfig(folder, **trl_settings(options, job)),
            train_dataset=Dataset.from_list(prompts),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    job.save(adapted)
    return [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]


def trl_prompt(tokenizer: Any, question: str) -> str:
    """The prompt without a begin-of-text token that the tokenizer adds, as it does when trl calls it."""
    text = prompt_text(tokenizer, question)
    adds_bos = tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if adds_bos else text


def trl_settings(options: argparse.Namespace, job: TrainingJob) -> dict[str, Any]:
    """The keyword arguments of trl's GRPOConfig."""
    on_cpu = not torch.cuda.is_available()
    return {
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "gradient_checkpointing": False,
        "learning_rate": job.recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": options.questions * options.completions,
        "num_generations": options.completions,
        "max_completion_length": options.tokens,
        "max_steps": options.steps,
        "temperature": 1.0,
        "beta": 0.0,
        "seed": job.recipe.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def main() -> None:
    """Train as the command line says, and print the rewards of all steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("base", "rows", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--kind", choices=KINDS, default="lora")
    parser.add_argument("--learning-rate", type=float)
    for name, default in (("steps", 50), ("questions", 4), ("completions", 8), ("tokens", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    recipe = RECIPES[options.kind]
    recipe = replace(recipe, learning_rate=options.learning_rate or recipe.learning_rate)
    start = time.monotonic()
    rewards = train(
        TrainingJob(options.base, options.folder, recipe), read_rows(options.rows, ("answer",)), options
    )
    seconds = time.monotonic() - start
    print(*(f"{reward:.3f}" for reward in rewards))
    done = options.steps * options.questions * options.completions
    hours = _COMPLETIONS * seconds / done / 3600
    print(f"{seconds / 60:.1f} minutes; three epochs of GSM8K would take {hours:,.0f} hours")


if __name__ == "__main__":
    main()
