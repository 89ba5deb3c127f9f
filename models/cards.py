"""The README.md of an adapter, as the hub reads it: what it is, how it was made, what it measurably did."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..convert.adapter.basis import TARGET_MODULES, Basis
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, encode_short_code
from ..files.output import output_errors
from .training.recipe import Recipe

if TYPE_CHECKING:
    from .training.grpo import GrpoResult, Rollouts
    from .training.train import TrainResult
    from .tuning.tune import TuneResult

_KINDS = {"lora": "LoRA", "tinylora": "TinyLoRA"}


@dataclass(frozen=True)
class RunFacts:
    """What a card tells of a run's inputs: the command, and the names of the data's and the model's files."""

    command: str
    data: str
    model: str
    base_id: str


def head(base_id: str, *tags: str) -> str:
    """The card's front matter."""
    lines = "\n".join(f"- {tag}" for tag in (f"base_model:adapter:{base_id}", *tags))
    return (
        f"---\nbase_model: {base_id}\nlibrary_name: peft\npipeline_tag: text-generation\n"
        f"tags:\n{lines}\n---\n"
    )


def tune_card(name: str, result: "TuneResult", basis: Basis, facts: RunFacts) -> str:
    """The card of an adapter that was tuned by forward passes."""
    held, change = result.held_out, result.held_out.difference
    low, high = 100 * change.low, 100 * change.high  # percentage points
    before, after = held.accuracy
    numbers = result.best.numbers.astype(np.float32)
    code = encode_short_code(ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers))
    return f"""{head(facts.base_id, "tinylora")}# {name}
A TinyLoRA adapter of {len(numbers)} numbers over {facts.base_id}.
All modules of {", ".join(TARGET_MODULES)} share them.
As a code, exact: `{code}`

## How it was made
By forward passes of the quantized model {facts.model} only, without gradients: CMA-ES over the numbers, each
candidate a run-time adapter.

```
{facts.command}
```

| spent | |
| --- | --- |
| generations | {result.generations}, with {result.restarts} restarts |
| questions put to candidates | {result.questions:,} of {facts.data} |
| time | {result.seconds / 60:.0f} minutes, {result.model_share:.2f} of it in the model |
| first step | {result.sigma:.2g} |
| chosen after generation | {result.best.generation} |

Basis: {basis.origin.id}, of weights with SHA-256 {basis.origin.base_sha256}.

## What it changed
On {len(held.before)} held-out questions, which nothing was chosen on, answered by the same quantized model:

| | right |
| --- | --- |
| before | {before:.1%} ({sum(held.before)}) |
| after | {after:.1%} ({sum(held.after)}) |
| gained, lost | {held.gained}, {held.lost} |
| difference | {100 * (after - before):+.1f} points |
| its 95 % interval, by paired bootstrap over questions | {low:+.1f} to {high:+.1f} points |
"""


def train_card(name: str, result: "TrainResult", recipe: Recipe, facts: RunFacts, base_sha256: str) -> str:
    """The card of an adapter that was trained on solutions."""
    held, change = result.held_out, result.held_out.difference
    table = "\n".join(f"| {key} | {value} |" for key, value in asdict(recipe).items())
    validation = ", ".join(f"{loss:.4f}" for loss in result.validation)
    return f"""{head(facts.base_id, recipe.kind)}# {name}
A {_KINDS[recipe.kind]} adapter of {result.trained_numbers:,} trained numbers over {facts.base_id}.
Its weights stay frozen; adapted are {", ".join(TARGET_MODULES)} of every layer.

## How it was made
Supervised, in float32 on a CPU: the loss on the answer's tokens only, after the chat template with its own
system prompt and the question as the user's turn; the answer ends in `#### number`. Adam, cosine schedule.

```
{facts.command}
```

- Rows: {result.rows:,} of {facts.data}, {result.tokens:,} tokens, {result.steps} steps
- Time: {result.train_s / 60:.1f} minutes of training, {recipe.threads} threads
- Base weights: SHA-256 {base_sha256}

| hyperparameter | value |
| --- | --- |
{table}

## What it changed
On {len(held.tokens)} rows that it was never trained on ({sum(held.tokens):,} answer tokens):

| loss | nats a token |
| --- | --- |
| before | {held.loss_before:.4f} |
| after | {held.loss_after:.4f} |
| after - before | {held.loss_after - held.loss_before:+.4f} |
| its 95 % interval, by paired bootstrap over rows | {change.low:+.4f} to {change.high:+.4f} |
| after each epoch, on the first of these rows | {validation} |
"""


def grpo_card(name: str, result: "GrpoResult", recipe: Recipe, rollouts: "Rollouts", facts: RunFacts) -> str:
    """The card of an adapter that was trained by rewards."""
    table = "\n".join(f"| {key} | {value} |" for key, value in asdict(rollouts).items())
    return f"""{head(facts.base_id, recipe.kind)}# {name}
A {_KINDS[recipe.kind]} adapter of {result.trained_numbers:,} trained numbers over {facts.base_id}.

## How it was made
By GRPO (trl), rewarded for a right final answer, at a learning rate of {recipe.learning_rate}.

```
{facts.command}
```

| a step | |
| --- | --- |
{table}

Time: {result.seconds / 60:.1f} minutes in the last sitting, {recipe.threads} threads.{_real_run(result)}

## What it changed
The mean reward of the first fifth of the steps was {result.mean(first=True):.3f}, of the last
{result.mean(first=False):.3f}.
"""


def _real_run(result: "GrpoResult") -> str:
    hours = result.real_run_hours
    if hours is None:
        return ""
    return (
        f" Three epochs of GSM8K, eight answers to a\nquestion, would take {hours:,.0f} hours at this pace: "
        "they are a GPU's work."
    )


def write_card(folder: Path, text: str) -> None:
    """Write a card into an adapter's folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / "README.md"
    with output_errors(path):
        path.write_text(text, encoding="utf-8")
