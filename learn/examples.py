"""Tokenized training rows, and the loss on their answers. The prompt format is that of the runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow
from ..runtime.engine.output_stream import sampled_mask
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from .base_model import Tokenizer
from .rollouts import SampledRow

_BATCH_ROWS = 8  # whose losses are computed together


@dataclass(frozen=True)
class Example:
    """A row in tokens: the prompt, then the answer, with the end-of-turn token unless it was cut off.

    The loss is on the answer, without `inserted`, the places of the tokens that the calculator inserts.
    """

    ids: list[int]
    prompt_tokens: int
    inserted: frozenset[int] = frozenset()
    question: str = ""

    @property
    def loss_places(self) -> list[int]:
        """Places of the tokens that the loss is on."""
        return [place for place in range(self.prompt_tokens, len(self.ids)) if place not in self.inserted]

    @property
    def answer_tokens(self) -> int:
        """The number of tokens that the loss is on."""
        return len(self.ids) - self.prompt_tokens - len(self.inserted)


def encode_example(
    tokenizer: Tokenizer, row: TrainingRow, *, final_line: bool = True, calculator: bool = False
) -> Example:
    """Tokenize a row as the runtime tokenizes a question and its answer.

    A last line with the final answer follows the solution, if wanted; with `calculator` the loss leaves out
    results that the runtime's calculator inserts.

    Raises:
        FileError: the chat template fails.
    """
    answer = tokenizer.answer(row.target if final_line else row.solution)
    return _example(tokenizer, row.question, tokenizer.prompt(row.question), answer, calculator=calculator)


def encode_sampled(tokenizer: Tokenizer, row: SampledRow, prompt: QuestionPrompt = PLAIN) -> Example:
    """Make the example of a solution that the model sampled, with the prompt around the question."""
    prompt_ids = tokenizer.prompt(row.question, prompt)
    assert len(prompt_ids) == row.prompt_tokens, "the runtime asked in other tokens"
    return _example(tokenizer, row.question, prompt_ids, row.tokens, calculator=True)


def _example(
    tokenizer: Tokenizer, question: str, prompt: list[int], answer: Sequence[int], *, calculator: bool
) -> Example:
    mask = sampled_mask(tokenizer.vocabulary, answer) if calculator else []
    inserted = frozenset(place for place, sampled in enumerate(mask, len(prompt)) if not sampled)
    return Example([*prompt, *answer], len(prompt), inserted, question)


def row_losses(
    model: Any, batch: Sequence[Example], *, bf16: bool = False, temperature: float = 1.0, cache: Any = None
) -> torch.Tensor:
    """The negative log-likelihood of each example's answer, in one forward pass.

    Args:
        model: transformers model.
        batch: the examples.
        bf16: multiply matrices in bfloat16.
        temperature: the likelihood is that at this temperature, above 0.
        cache: KV cache of a prefix of all prompts, for as many rows; see SharedPrefix.

    Returns:
        Nats summed over the answer's tokens, (rows,).
    """
    # Causal attention never sees padding on the right: no mask is needed, and the fast kernel applies.
    known = 0 if cache is None else cache.get_seq_length()
    longest = max(len(example.ids) for example in batch)
    padded = [example.ids[known:] + [0] * (longest - len(example.ids)) for example in batch]
    ids = torch.tensor(padded)  # (rows, tokens)
    counts = torch.tensor([example.answer_tokens for example in batch])
    row = torch.repeat_interleave(torch.arange(len(batch)), counts)  # (answer tokens,)
    column = torch.tensor([place for example in batch for place in example.loss_places]) - known
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        decoded = run_decoder(model, ids, cache)
        hidden = decoded.last_hidden_state[row, column - 1]  # (answer tokens, width)
        logits = model.get_output_embeddings()(hidden)  # (answer tokens, vocabulary)
    logits, targets = logits.float(), ids[row, column]
    if temperature != 1:
        logits.div_(temperature)  # in place: a copy can take a gigabyte
    losses = cross_entropy(logits, targets, reduction="none")
    return torch.zeros(len(batch)).index_add(0, row, losses)


def run_decoder(model: Any, ids: torch.Tensor, cache: Any = None) -> Any:
    """The output of a model without its head; the tokens are added to a KV cache, if one is given."""
    decoder = model.get_decoder()
    # transformers 5.24 has renamed the argument.
    name = "cache" if "cache" in signature(decoder.forward).parameters else "past_key_values"
    return decoder(input_ids=ids, use_cache=cache is not None, **({name: cache} if cache is not None else {}))


def held_out_losses(
    model: Any, examples: Sequence[Example], bf16: bool = False, progress: Progress = no_progress
) -> list[float]:
    """The loss of each example as in row_losses()."""
    losses: list[float] = []
    with torch.inference_mode():
        for first in range(0, len(examples), _BATCH_ROWS):
            losses += row_losses(model, examples[first : first + _BATCH_ROWS], bf16=bf16).tolist()
            progress(len(losses), len(examples))
    return losses
