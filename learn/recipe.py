"""Hyperparameters of a supervised run, and the published recipes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the result of a run, given the base and the rows.

    Attributes:
        kind: `lora` of rank 1 with alpha 16, or `tinylora`.
        groups: groups of neighboring layers; each has its own part of a TinyLoRA's numbers.
        warmup: fraction of all steps over which the learning rate rises, before its cosine decay.
        max_tokens: longer training rows are dropped; held-out rows never are.
        final_line: whether a last line with the final answer follows the solutions.
        calculator: whether the loss leaves out results that the runtime's calculator inserts.
    """

    kind: str = "lora"
    numbers: int = 13
    groups: int = 1
    learning_rate: float = 4e-5
    warmup: float = 0.0
    epochs: int = 3
    batch_rows: int = 128
    max_tokens: int = 512
    max_rows: int = 100_000
    held_out: int = 300
    final_line: bool = True
    calculator: bool = False
    bf16: bool = False
    seed: int = 13


# LoRA as published. TinyLoRA with the schedule of smollm2-135m-sums-840.
RECIPES = {
    "lora": Recipe(),
    "tinylora": Recipe(
        "tinylora", learning_rate=1e-2, warmup=0.05, epochs=1, batch_rows=8, max_tokens=160, max_rows=1_000
    ),
}
