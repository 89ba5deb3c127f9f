"""Supervised training of a tiny adapter with PEFT: a few numbers learned over a frozen base, on a CPU.

The adapter is TinyLoRA (arXiv 2602.04118, "Learning to Reason in 13 Parameters"):
W' = W + B (sum_i v_i P_i) A with B and A from the truncated SVD of the frozen W, P_i fixed random r x r
matrices, and v, shared by all modules, the only thing trained.
"""
# ruff: noqa: PLC0415 - torch, transformers and peft take seconds to import and come with an extra

from __future__ import annotations

import argparse
import json
import math
import random
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CheckpointError, OutputError, ThirteenError

if TYPE_CHECKING:
    import torch

PROJECTIONS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
_BOOTSTRAPS = 10_000
_LEAST = {"learning_rate": 1e-9, "warmup": 0, "seed": 0, "projection_seed": 0}  # of the others, 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """A question, its worked solution, and the final answer if it is not part of the solution."""

    question: str
    solution: str
    answer: str = ""

    @property
    def target(self) -> str:
        """What the model is to answer; the last line is GSM8K's, which `runtime/answer.py` reads first."""
        return f"{self.solution}\n#### {self.answer}" if self.answer else self.solution


@dataclass(frozen=True)
class Example:
    """A row as token ids: the prompt, then the answer that the loss is taken on, end of turn included."""

    ids: list[int]
    prompt_tokens: int

    @property
    def answer_tokens(self) -> int:
        """The number of tokens that count."""
        return len(self.ids) - self.prompt_tokens


@dataclass(frozen=True)
class Recipe:
    """What decides the result, given the base and the rows."""

    rank: int = 2
    numbers: int = 13
    learning_rate: float = 1e-2
    warmup: float = 0.05  # of all steps
    epochs: int = 1
    batch_rows: int = 8
    max_tokens: int = 160  # longer training rows are left out; held-out rows never are
    max_rows: int = 1_000
    held_out: int = 300
    seed: int = 13
    projection_seed: int = 42
    threads: int = 2


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

    def interval(self, seed: int = 13) -> tuple[float, float]:
        """The 95 % interval of `loss_after - loss_before`, by a paired bootstrap over rows."""
        import numpy as np

        drawn = np.random.default_rng(seed).integers(len(self.tokens), size=(_BOOTSTRAPS, len(self.tokens)))
        difference = np.subtract(self.after, self.before)[drawn].sum(axis=1)  # (bootstraps,)
        low, high = np.quantile(difference / np.asarray(self.tokens)[drawn].sum(axis=1), (0.025, 0.975))
        return float(low), float(high)


@dataclass(frozen=True)
class TrainResult:
    """What a training run made, and what it measurably changed."""

    folder: Path
    trained_numbers: int
    rows: int
    tokens: int  # of all training rows, prompts included
    steps: int
    train_s: float
    held_out: HeldOut


def read_rows(path: Path) -> list[Row]:
    """Read JSON lines with `question`, `solution`, and optionally `answer`.

    Raises:
        ThirteenError: The file cannot be read, has no rows, or a row is not such an object; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ThirteenError(f"{path}: cannot read the data: {reason}") from None
    rows = [_row(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ThirteenError(f"{path}: holds no rows to train on")
    return rows


def _row(line: str, where: str) -> Row:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ThirteenError(f"{where}: not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise ThirteenError(f"{where}: a JSON object is wanted, not {type(entry).__name__}")
    for field in ("question", "solution"):
        value = entry.get(field)
        if not isinstance(value, str) or not value.strip():
            raise ThirteenError(f"{where}: {field!r} must be a text that is not empty, not {value!r:.60}")
    answer = entry.get("answer", "")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ThirteenError(f"{where}: 'answer' must be a text or a number, not {answer!r:.60}")
    return Row(entry["question"].strip(), entry["solution"].strip(), str(answer).strip())


def split(rows: Sequence[Row], held_out: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Deal `rows` into those to train on and `held_out` others, by `seed`.

    Raises:
        ThirteenError: One of the two would be empty.
    """
    if not 0 < held_out < len(rows):
        raise ThirteenError(f"--held-out {held_out}: must leave some of the {len(rows)} rows on either side")
    shuffled = random.Random(seed).sample(rows, len(rows))  # noqa: S311 - wanted: the same on every machine
    return shuffled[held_out:], shuffled[:held_out]


def encode(tokenizer: Any, row: Row) -> Example:
    """Tokenize a row as at run time: the chat template's own system prompt, the question, the answer."""
    chat = [{"role": "user", "content": row.question}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
    answer_ids = tokenizer(row.target, add_special_tokens=False).input_ids
    return Example([*prompt_ids, *answer_ids, tokenizer.eos_token_id], len(prompt_ids))


def batches(examples: Sequence[Example], rows: int, seed: int) -> list[list[Example]]:
    """Cut `examples` into batches of `rows` of similar length, in an order drawn from `seed`."""
    rng = random.Random(seed)  # noqa: S311
    shuffled = rng.sample(examples, len(examples))
    pools = (shuffled[i : i + 16 * rows] for i in range(0, len(shuffled), 16 * rows))
    by_length = [sorted(pool, key=lambda example: len(example.ids)) for pool in pools]
    cut = [pool[i : i + rows] for pool in by_length for i in range(0, len(pool), rows)]
    return rng.sample(cut, len(cut))


def load(base: Path) -> tuple[Any, Any]:
    """Load a base, a folder of safetensors or a GGUF, in float32 with frozen weights.

    Returns:
        The transformers model and its tokenizer.

    Raises:
        CheckpointError: It is neither, or its tokenizer has no chat template.
        ThirteenError: The extra that training needs is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ThirteenError(f"training needs {error.name}: pip install 'thirteen[peft]'") from None
    logging.disable_progress_bar()
    is_file = base.is_file()
    place = {"gguf_file": base.name} if is_file else {}
    folder = str(base.parent if is_file else base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **place)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, **place
        )
    except Exception as error:  # transformers, tokenizers and gguf raise kinds of all sorts here
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{base}: transformers cannot load it ({reason:.200})") from error
    if not tokenizer.chat_template:
        raise CheckpointError(f"{base}: its tokenizer has no chat template")
    if is_file:
        _split_digits(base, tokenizer)
    return model.requires_grad_(False).eval(), tokenizer


def _split_digits(base: Path, tokenizer: Any) -> None:
    """Give SmolLM2's tokenizer back the rule that transformers drops from a GGUF: each digit is a token."""
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import ByteLevel, Digits
    from tokenizers.pre_tokenizers import Sequence as InOrder

    field = GGUFReader(base).get_field("tokenizer.ggml.pre")
    pre = field.contents() if field else None
    if pre != "smollm":
        raise CheckpointError(f"{base}: tokenizer.ggml.pre is {pre!r}; train from the folder of safetensors")
    rules: Any = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = InOrder(rules)


def attach(model: Any, recipe: Recipe) -> Any:
    """Wrap `model` in a TinyLoRA that changes nothing yet; its `recipe.numbers` numbers are all that trains.

    Returns:
        The PEFT model; `model` itself now runs through the adapter.
    """
    from peft import TinyLoraConfig, get_peft_model

    config = TinyLoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        u=recipe.numbers,
        weight_tying=1.0,
        projection_seed=recipe.projection_seed,
        save_projection=True,
        target_modules=list(PROJECTIONS),
    )
    return get_peft_model(model, config)


def row_losses(model: Any, batch: Sequence[Example]) -> torch.Tensor:
    """The negative log-likelihood of each example's answer.

    Returns:
        Nats summed over the answer's tokens, (rows,).
    """
    import torch
    from torch.nn.functional import cross_entropy

    longest = max(len(example.ids) for example in batch)
    # Padded on the right, which causal attention never looks at; so no mask, and the fast kernel.
    ids = torch.tensor(
        [example.ids + [0] * (longest - len(example.ids)) for example in batch]
    )  # (rows, tokens)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state  # (rows, tokens, width)
    counts = torch.tensor([example.answer_tokens for example in batch])
    row = torch.repeat_interleave(torch.arange(len(batch)), counts)  # (answer tokens,)
    column = torch.cat([torch.arange(example.prompt_tokens, len(example.ids)) for example in batch])
    logits = model.get_output_embeddings()(hidden[row, column - 1])  # (answer tokens, vocabulary)
    losses = cross_entropy(logits, ids[row, column], reduction="none")
    return torch.zeros(len(batch)).index_add(0, row, losses)


def measure(
    model: Any, examples: Sequence[Example], batch_rows: int = 8, title: str = "measure"
) -> list[float]:
    """The loss of each example, as `row_losses`, in the order of `examples`."""
    import torch

    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    losses = [0.0] * len(examples)
    with torch.inference_mode():
        for start in _bar(range(0, len(order), batch_rows), title):
            chosen = order[start : start + batch_rows]
            found = row_losses(model, [examples[i] for i in chosen]).tolist()
            for i, loss in zip(chosen, found, strict=True):
                losses[i] = loss
    return losses


def fit(model: Any, examples: Sequence[Example], recipe: Recipe) -> list[float]:
    """Train what requires a gradient: Adam, a short warm-up, then a cosine down to zero.

    Returns:
        The training loss at each step, in nats a token.
    """
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)
    seeds = range(recipe.seed, recipe.seed + recipe.epochs)
    plan = [batch for seed in seeds for batch in batches(examples, recipe.batch_rows, seed)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(len(plan), recipe.warmup))
    losses: list[float] = []
    for batch in _bar(plan, "train", lambda: f"loss {_recent(losses):.4f}"):
        optimizer.zero_grad()
        loss = row_losses(model, batch).sum() / sum(example.answer_tokens for example in batch)
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ThirteenError(f"the loss became {losses[-1]}: lower --learning-rate {recipe.learning_rate}")
    return losses


def _recent(losses: Sequence[float]) -> float:
    return sum(losses[-20:]) / max(1, len(losses[-20:]))


def _cosine(steps: int, warmup: float) -> Callable[[int], float]:
    rising = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * step / steps))

    return factor


def train(  # noqa: PLR0913 - each is a thing of its own
    base: Path,
    training: Sequence[Row],
    held_out: Sequence[Row],
    out: Path,
    *,
    recipe: Recipe,
    base_id: str = "",
) -> TrainResult:
    """Train an adapter over `base` and save it as a PEFT folder at `out`.

    Args:
        base: A folder of safetensors or a GGUF; it is dequantized to float32.
        training: Rows to train on; those longer than `recipe.max_tokens` are left out, the first
            `recipe.max_rows` others are taken.
        held_out: Rows never trained on, for the loss before and after.
        out: The folder to write, made if need be.
        recipe: Everything else that decides the result.
        base_id: The base's name to record in the adapter, if not its path.

    Raises:
        CheckpointError: The base cannot be loaded.
        OutputError: `out` cannot be written.
        ThirteenError: No training row is short enough, or the loss is no longer a number.
    """
    model, tokenizer = load(base)
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    encoded = (encode(tokenizer, row) for row in training)
    examples = [example for example in encoded if len(example.ids) <= recipe.max_tokens][: recipe.max_rows]
    if not examples:
        raise ThirteenError(f"--max-tokens {recipe.max_tokens}: all {len(training)} training rows are longer")
    held = [encode(tokenizer, row) for row in held_out]
    adapted = attach(model, recipe)
    before = measure(model, held, title="held out, before")
    start = time.monotonic()
    steps = len(fit(model, examples, recipe))
    train_s = time.monotonic() - start
    after = measure(model, held, title="held out, after")
    with _writing(out):
        _save(adapted, out, base_id or str(base))
    return TrainResult(
        folder=out,
        trained_numbers=sum(p.numel() for p in model.parameters() if p.requires_grad),
        rows=len(examples),
        tokens=recipe.epochs * sum(len(example.ids) for example in examples),
        steps=steps,
        train_s=train_s,
        held_out=HeldOut(tuple(example.answer_tokens for example in held), tuple(before), tuple(after)),
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot write: {getattr(error, 'strerror', None) or error}") from None


def _save(adapted: Any, out: Path, base_id: str) -> None:
    adapted.peft_config["default"].base_model_name_or_path = base_id
    adapted.save_pretrained(out, save_embedding_layers=False)  # else it asks the hub about the base
    path = out / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set, in no order
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Origin:
    """Where an adapter comes from, for its card."""

    base_id: str
    base_sha256: str
    data: str  # the file's name
    command: str


def card(result: TrainResult, recipe: Recipe, origin: Origin) -> str:
    """The adapter's README.md, as the hub reads it: what it is, how it was made, what it changed."""
    held, (low, high) = result.held_out, result.held_out.interval()
    table = "\n".join(f"| {name} | {value} |" for name, value in asdict(recipe).items())
    return f"""---
base_model: {origin.base_id}
library_name: peft
pipeline_tag: text-generation
tags:
- base_model:adapter:{origin.base_id}
- tinylora
---
# {result.folder.name}
A TinyLoRA adapter of {result.trained_numbers} trained numbers over {origin.base_id}.
Its weights stay frozen; the numbers are shared by all modules of {", ".join(PROJECTIONS)}.

## How it was made
Supervised, in float32 on a CPU: the loss on the answer's tokens only, after the chat template with its own
system prompt and the question as the user's turn; the answer ends in `#### number`. Adam, cosine schedule.

```
{origin.command}
```

- Rows: {result.rows:,} of {origin.data}, {result.tokens:,} tokens, {result.steps} steps
- Time: {result.train_s / 60:.1f} minutes of training, {recipe.threads} threads
- Base weights: SHA-256 {origin.base_sha256}

| hyperparameter | value |
| --- | --- |
{table}

## What it changed
On {len(held.tokens)} rows of the same file that it was never trained on ({sum(held.tokens):,} answer tokens):

| loss | nats a token |
| --- | --- |
| before | {held.loss_before:.4f} |
| after | {held.loss_after:.4f} |
| after - before | {held.loss_after - held.loss_before:+.4f} |
| its 95 % interval, by paired bootstrap over rows | {low:+.4f} to {high:+.4f} |
"""


def _base_sha256(base: Path) -> str:
    from ..digest import file_sha256

    files = [base] if base.is_file() else sorted(base.glob("*.safetensors"))
    return ", ".join(file_sha256(file) for file in files)


def _bar(items: Sequence[_T], title: str, status: Callable[[], str] = str) -> Iterator[_T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[status]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=len(items), status="")
        for item in items:
            yield item
            progress.update(task, advance=1, status=status())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m thirteen.models.train",
        description="Train an adapter of a few numbers on questions and worked solutions.",
        epilog="example: python -m thirteen.models.train --data gsm8k-train.jsonl --out my-adapter",
    )
    parser.add_argument("--data", type=Path, required=True, help="JSON lines: question, solution, answer")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--base", type=Path, help="a folder of safetensors or a GGUF; else the embedded default"
    )
    parser.add_argument("--base-id", default="", help="the base's name to record; else its path")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"(default {value})"
        )
    return parser.parse_args(argv)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = Recipe(**{name: getattr(arguments, name) for name in asdict(Recipe())})
    for name, value in asdict(recipe).items():
        least = _LEAST.get(name, 1)
        if not least <= value < math.inf:
            raise ThirteenError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    return recipe


def _run(arguments: argparse.Namespace, argv: Iterable[str]) -> TrainResult:
    from .catalogue import catalogue
    from .fetch import embedded

    recipe = _recipe(arguments)
    training, held_out = split(read_rows(arguments.data), recipe.held_out, recipe.seed)
    base = arguments.base or embedded()
    known = catalogue()
    usual_id = str(base) if arguments.base else known.bases[known.embedded.base].hub_id
    base_id = arguments.base_id or usual_id
    result = train(base, training, held_out, arguments.out, recipe=recipe, base_id=base_id)
    command = shlex.join(["python", "-m", "thirteen.models.train", *argv])
    text = card(result, recipe, Origin(base_id, _base_sha256(base), arguments.data.name, command))
    with _writing(arguments.out / "README.md"):
        (arguments.out / "README.md").write_text(text, encoding="utf-8")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _arguments(argv)
    try:
        result = _run(arguments, sys.argv[1:] if argv is None else argv)
    except ThirteenError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    held = result.held_out
    sys.stdout.write(
        f"{result.folder}: {result.trained_numbers} numbers, held-out loss {held.loss_before:.4f} to "
        f"{held.loss_after:.4f} nats a token\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
