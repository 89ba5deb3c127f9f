"""Rows as tokens, and the loss on them: of the answer only, after the chat template as at run time."""
# ruff: noqa: PLC0415 - torch takes seconds to import and comes with an extra

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...files.progress import Progress, no_progress
from ..rows import TrainingRow

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Example:
    """A row as token ids: the prompt, then the answer that the loss is taken on, end of turn included."""

    ids: list[int]
    prompt_tokens: int

    @property
    def answer_tokens(self) -> int:
        """The number of tokens that count."""
        return len(self.ids) - self.prompt_tokens


def encode_example(tokenizer: Any, row: TrainingRow) -> Example:
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


def held_out_losses(
    model: Any,
    examples: Sequence[Example],
    batch_rows: int = 8,
    moved: Progress = no_progress,
) -> list[float]:
    """The loss of each example, as `row_losses`, in the order of `examples`; `moved` hears of progress."""
    import torch

    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    losses = [0.0] * len(examples)
    with torch.inference_mode():
        for start in range(0, len(order), batch_rows):
            chosen = order[start : start + batch_rows]
            found = row_losses(model, [examples[i] for i in chosen]).tolist()
            for i, loss in zip(chosen, found, strict=True):
                losses[i] = loss
            moved(min(start + batch_rows, len(order)), len(order))
    return losses
