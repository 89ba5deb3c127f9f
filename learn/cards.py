"""Model cards: the README.md of an adapter, with its origin and its measured effect.

Each card is made of a result, the command line, and the file name of the rows.
"""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..convert.adapter.delta import CONFIG_FILE
from ..errors import OutputError
from ..files.output import atomic_write, check_folder
from ..files.received_files import PROMPT_FILE
from ..runtime.prompt.question_prompt import PLAIN
from .natural_gradient import KL
from .recipe import Recipe
from .rollouts import TEMPERATURE

if TYPE_CHECKING:
    from .learn_result import LearnedNumbers, LearnResult
    from .train import TrainResult

_CARD = "README.md"
_CODE_MAX = 120  # characters of a code that is shown
_SET_ASIDE = (
    "They were set aside. None begins as one that anything was learned from, but for its numbers and names."
)
_APART = "None begins as one that the prompt was chosen on, but for its numbers and names."
_IN_FOLDS = """Each fifth was answered with numbers that were learned from the other four, of which none
begins as one of it, but for its numbers and names. The adapter itself learned from all."""
_NOTHING_LEARNED = """A prompt for {0.base_id}, without an adapter: {0.verdict}.

## How it was made
Of {0.asked:,} questions that were asked with the prompt, {0.sometimes_right} have right and wrong solutions,
and {0.never_right} have no right one: too few to learn from."""
_ASK = "\n`ask --adapter` with this folder asks with it."
_WRITE = """
`thirteen convert MODEL --type same --prompt FOLDER --output FILE` writes it alone into a file's chat
template, if the file has one.
"""
_KINDS = {"lora": "LoRA", "tinylora": "TinyLoRA"}


def check_output(folder: Path, state: str) -> None:
    """Check, before any work, that a run can write its folder, and replaces nothing but its own files.

    An earlier part of the run leaves a file named `state` there.

    Raises:
        OutputError: it cannot.
    """
    check_folder(folder)
    card, made = folder / _CARD, [name for name in (CONFIG_FILE, PROMPT_FILE) if (folder / name).exists()]
    if card.exists() and not made:
        raise OutputError(f"{card}: is not of an adapter, and would be overwritten: choose another output")
    if made and not (folder / state).exists():
        raise OutputError(f"{folder}: has {made[0]}, which would be overwritten: choose another output")


def refuse_base_folder(folder: Path, base: Path) -> None:
    """Raise OutputError if an adapter's folder is that of its base, a file or a folder."""
    if folder.resolve() == (base.parent if base.is_file() else base).resolve():
        raise OutputError(f"{folder}: is the folder of the base: choose another output")


def write_card(folder: Path, text: str) -> None:
    """Write a card to an adapter's folder."""
    with atomic_write(folder / _CARD) as file:
        file.write(text.encode())


def _front_matter(base_id: str, *tags: str) -> str:
    """The YAML metadata that the hub reads."""
    lines = "\n".join(f"- {tag}" for tag in (f"base_model:adapter:{base_id}", *tags))
    return (
        f"---\nbase_model: {base_id}\nlibrary_name: peft\npipeline_tag: text-generation\n"
        f"tags:\n{lines}\n---\n"
    )


def train_card(recipe: Recipe, result: "TrainResult", name: str, command: str, data: str) -> str:
    """The card of an adapter trained on worked solutions."""
    settings = "\n".join(f"| {key} | {value} |" for key, value in asdict(recipe).items())
    return f"""{_front_matter(result.base_id, recipe.kind)}# {name}
A {_KINDS[recipe.kind]} adapter of {result.trained_numbers:,} trained numbers over {result.base_id}.
Its weights stay frozen; adapted are all matrices of every layer.

## How it was made
Supervised, on a CPU: the loss on the answer's tokens only, after the question as the runtime asks it. Adam,
cosine schedule.

```
{command}
```

- Rows: {result.rows:,} of {data}, {result.steps} steps
- Time: {result.train_s / 60:.1f} minutes, since the last resume

| hyperparameter | value |
| --- | --- |
{settings}

## What it changed
The loss on {result.held_out} questions that it was never trained on, in nats a token, with a 95 % interval by
paired bootstrap over questions:

| before | after | difference |
| --- | --- | --- |
| {result.loss_before:.4f} | {result.loss_after:.4f} | {result.difference.text(4)} |
"""


def learn_card(result: "LearnResult", model: str, name: str, command: str, data: str) -> str:
    """The card of a prompt, and of an adapter that was learned with it, from questions with known answers."""
    held, learned = result.held_out, result.learned
    count, tokens, change = len(held.base), held.tokens, held.change.difference
    shares = [f"{right} ({right / count:.1%})" for right in held.right]
    changes = [one.difference.text(1, 100) for one in (held.of_prompt, held.of_adapter)]
    moved = ["{1}, {2}".format(*one.counts) for one in (held.of_prompt, held.change, held.of_adapter)]
    measured = (_IN_FOLDS if learned else _APART) if result.in_folds else _SET_ASIDE
    adapted = f"| {shares[2]} | {change.text(1, 100)} | {moved[1]} | {tokens[2]:.0f} |"
    of_adapter = f"""| adapter, best prompt {adapted}

The adapter beside the prompt alone: {changes[1]} points; {moved[2]} became right and wrong.
"""
    return f"""{_front_matter(result.base_id, "tinylora") if learned else ""}# {name}
{_learned_part(learned, result, model, name) if learned else _NOTHING_LEARNED.format(result)}
The questions to learn from are of {data}.

```
{command}
```

{_prompt_part(result)}
- Time: {result.minutes:.1f} minutes, since the last resume

## What it changed
Greedy answers within {result.max_tokens} tokens, with the calculator, to {count} questions.
{measured} An answer that does not end in time is wrong.

| | right | difference from the base, points (95 %) | became right, became wrong | tokens an answer |
| --- | --- | --- | --- | --- |
| base | {shares[0]} | | | {tokens[0]:.0f} |
| base, best prompt | {shares[1]} | {changes[0]} | {moved[0]} | {tokens[1]:.0f} |
{of_adapter if learned else ""}
The verdict: {result.verdict}.
"""


def _learned_part(learned: "LearnedNumbers", result: "LearnResult", model: str, name: str) -> str:
    code = result.prompt.prompt == PLAIN and len(learned.code) < _CODE_MAX
    adapter = learned.code if code else shlex.quote(name)
    return f"""A TinyLoRA adapter of {learned.count:,} trained numbers over {result.base_id}:
{result.verdict}.

```
thirteen ask {shlex.quote(model)} --adapter {adapter} "QUESTION"
```

## How it was made
By one step of the natural policy gradient, on {learned.solutions:,} right and wrong solutions to
{result.sometimes_right:,} of {result.asked:,} questions, sampled at temperature
{TEMPERATURE:g} within {result.max_tokens} tokens. Its length is {KL:g} nats of KL divergence
per token, to second order; {learned.expected.text(1, 100)} points were expected among samples, to first
order. The damping of the Fisher matrix, {learned.damping:g} of its largest eigenvalue, was chosen by
cross-validation. The basis is {learned.basis}."""


def _prompt_part(result: "LearnResult") -> str:
    if not result.ranked and result.prompt.prompt == PLAIN:
        return "The prompt is the plain question: none was searched for.\n"
    chosen = "\n".join(f"- {one.text}" for one in result.ranked)
    how = (
        f"""It was chosen on {result.searched} of the questions to learn from, none of which is measured on,
by successive halving: the worse half of the prompts was dropped each time.

{chosen}"""
        if result.ranked
        else "It was given."
    )
    text = (
        ""
        if result.prompt.prompt == PLAIN
        else f"\n```json\n{result.prompt.prompt.json}\n```\n{_ASK * bool(result.learned)}{_WRITE}"
    )
    return f"The best prompt: {result.prompt.name}. {how}\n{text}"
