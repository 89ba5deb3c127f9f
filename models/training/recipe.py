"""What decides a training run, and the recipes that were published."""

import math
from dataclasses import dataclass, fields

from ...errors import ThirteenError

KINDS = ("lora", "tinylora")
METHODS = ("sft", "grpo")
RANK_MAX = 64
_LEAST = {
    "learning_rate": 1e-9,
    "warmup": 0,
    "share": 1e-9,
    "seed": 0,
    "projection_seed": 0,
}  # of the others, 1


@dataclass(frozen=True)
class Recipe:
    """What decides the result, given the base and the rows.

    Attributes:
        kind: `lora`, or `tinylora` with one vector for all modules.
        rank: of the factors.
        alpha: LoRA's scale is alpha / rank.
        numbers: that TinyLoRA trains.
        learning_rate: the highest, before the cosine.
        warmup: the part of all steps over which it rises.
        epochs: how often each row is taken.
        batch_rows: of a step.
        micro_rows: that go through the model at once; the rest of a step's is accumulated.
        share: the part of the training rows that is taken, chosen by the seed.
        max_tokens: longer training rows are left out; held-out rows never are.
        max_rows: the most rows.
        held_out: how many rows the loss before and after is measured on.
        seed: of all that is drawn.
        projection_seed: of TinyLoRA's projections.
        threads: that compute.
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
    share: float = 0.1
    max_tokens: int = 512
    max_rows: int = 100_000
    held_out: int = 300
    seed: int = 13
    projection_seed: int = 42
    threads: int = 2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ThirteenError(f"--kind {self.kind!r}: there are {' and '.join(KINDS)}")
        for field in fields(self):
            value, least = getattr(self, field.name), _LEAST.get(field.name, 1)
            if field.name != "kind" and not least <= value < math.inf:
                raise ThirteenError(f"--{field.name.replace('_', '-')} {value}: must be at least {least}")
        if self.share > 1 or self.rank > RANK_MAX:
            raise ThirteenError(f"--share {self.share} is at most 1, --rank {self.rank} at most {RANK_MAX}")

    @property
    def micro_batch(self) -> int:
        """Rows that go through the model at once."""
        return min(self.micro_rows, self.batch_rows)


# LoRA as published: three epochs of a tenth of GSM8K's training set. TinyLoRA as the shipped adapter's.
RECIPES = {
    "lora": Recipe(),
    "tinylora": Recipe(
        "tinylora",
        rank=2,
        learning_rate=1e-2,
        warmup=0.05,
        epochs=1,
        batch_rows=8,
        share=1.0,
        max_tokens=160,
        max_rows=1_000,
    ),
}
