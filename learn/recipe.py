"""Hyperparameters of a training run, and the published recipes."""

import math
from dataclasses import dataclass, fields

from ..errors import OptionError

KINDS = ("lora", "tinylora")
# Bounds of the numbers; of the others the minimum is 1.
_MINIMUM = {"learning_rate": 1e-9} | dict.fromkeys(("warmup", "seed", "projection_seed"), 0)
_MAXIMUM = {
    "rank": 64,
    "alpha": 1 << 20,
    "numbers": 4096,
    "learning_rate": 1000,
    "warmup": 1,
    "epochs": 10_000,
    "seed": (1 << 32) - 1,
    "projection_seed": 1 << 32,
    "threads": 512,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result of a run, given the base and the rows.

    Attributes:
        kind: `lora`, or `tinylora` with one vector shared by all modules.
        rank: rank of the factors.
        alpha: LoRA scales its update by alpha / rank.
        numbers: size of TinyLoRA's vector.
        learning_rate: peak of the schedule.
        warmup: fraction of all steps over which the learning rate rises.
        epochs: passes over the training rows.
        batch_rows: rows per step.
        micro_rows: rows per forward pass; gradients are accumulated over a step.
        max_tokens: longer training rows are dropped; held-out rows never are.
        max_rows: maximum number of training rows.
        held_out: rows on which the loss before and after training is measured.
        final_line: whether a last line with the final answer follows the solutions.
        calculator: whether the loss leaves out results that the runtime's calculator inserts.
        bf16: whether matrices are multiplied in bfloat16; weights and trained numbers are kept in float32.
        seed: seed of the split, the order of the rows and the initial weights.
        projection_seed: seed of TinyLoRA's projections.
        threads: CPU threads.
    """

    kind: str = "lora"
    rank: int = 1
    alpha: int = 16
    numbers: int = 13
    learning_rate: float = 4e-5
    warmup: float = 0.0
    epochs: int = 3
    batch_rows: int = 128
    micro_rows: int = 8
    max_tokens: int = 512
    max_rows: int = 100_000
    held_out: int = 300
    final_line: bool = True
    calculator: bool = False
    bf16: bool = False
    seed: int = 13
    projection_seed: int = 42
    threads: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            minimum, maximum = _MINIMUM.get(field.name, 1), _MAXIMUM.get(field.name, math.inf)
            if isinstance(value, bool | str) or minimum <= value <= maximum:
                continue
            bound = f"at most {maximum}" if value > maximum else f"at least {minimum}"
            raise OptionError(field.name, f"must be {bound}", value)


# LoRA as published. TinyLoRA with the schedule of smollm2-135m-sums-840.
RECIPES = {
    "lora": Recipe(),
    "tinylora": Recipe(
        "tinylora",
        rank=2,
        learning_rate=1e-2,
        warmup=0.05,
        epochs=1,
        batch_rows=8,
        max_tokens=160,
        max_rows=1_000,
    ),
}
