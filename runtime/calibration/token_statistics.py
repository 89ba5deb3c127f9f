"""How often texts use each token, and the probability that a model gives each token over them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelFileError, RequestError
from ...files.progress import Progress, no_progress
from ..llama.context import Context, ContextParams, Span
from ..llama.model import Model
from ..logits import log_softmax
from ..threads import default_threads
from .corpus import TokenizedPassage

PASSAGE_TOKENS = 512  # of a longer passage, the beginning
_ROWS = 128  # rows of logits at once

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutsideProbability:
    """The probability of what a smaller vocabulary would not have, at each position of some texts.

    Attributes:
        values: probability outside, (sizes, positions).
        answers: whether the position predicts a token of a solution, (positions,).
    """

    values: NDArray[np.float64]
    answers: NDArray[np.bool_]


def count_tokens(model: Model, passages: Sequence[TokenizedPassage]) -> NDArray[np.int64]:
    """Count how often the passages use each token, (vocab,)."""
    tokens = [token for passage in passages for token in passage.tokens]
    return np.bincount(np.array(tokens, np.int64), minlength=model.vocabulary_size)


def sample_passages(passages: Sequence[TokenizedPassage], positions: int) -> list[TokenizedPassage]:
    """Take passages evenly spread over all, of about `positions` tokens in all, and at least one."""
    sizes = np.array([min(len(passage.tokens), PASSAGE_TOKENS) for passage in passages])
    step = max(sizes.sum() / positions, 1.0)
    return [passages[int(place)] for place in np.arange(0, len(passages), step)]


def mean_probability(
    model: Model,
    passages: Sequence[TokenizedPassage],
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> Probabilities:
    """Compute the mean over all positions of the probability of each token, (vocab,).

    Args:
        model: the full model.
        passages: each runs in an empty context.
        threads: compute threads; by default one per physical core.
        progress: called after each passage.

    Raises:
        ModelFileError: a probability is not a finite number.
        RequestError: the passages have no tokens.
    """
    total, positions = np.zeros(model.vocabulary_size), 0
    for _, probabilities in _predictions(model, passages, threads, progress):
        total += probabilities
        positions += 1
    if not np.isfinite(total).all():
        raise ModelFileError(f"{model.header.path}: the model's probabilities are not finite numbers")
    return total / positions


def outside_probability(  # noqa: PLR0913 - options of a measurement, each with its default
    model: Model,
    passages: Sequence[TokenizedPassage],
    order: Sequence[int],
    sizes: Sequence[int],
    *,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> OutsideProbability:
    """Measure the probability of what vocabularies would not have.

    Args:
        model: the full model.
        passages: each runs in an empty context.
        order: all tokens, in the order in which they are kept.
        sizes: numbers of tokens kept.
        threads: compute threads; by default one per physical core.
        progress: called after each passage.

    Raises:
        RequestError: the passages have no tokens.
    """
    by_rank = np.array(order)
    values, answers = [], []
    for in_answer, probabilities in _predictions(model, passages, threads, progress):
        ranked = probabilities[by_rank]
        values.append([ranked[size:].sum() for size in sizes])
        answers.append(in_answer)
    return OutsideProbability(np.array(values).T, np.array(answers))


def _predictions(
    model: Model, passages: Sequence[TokenizedPassage], threads: int | None, progress: Progress
) -> Iterator[tuple[bool, Probabilities]]:
    """Yield for each position whether it predicts a solution's token, and all probabilities, (vocab,)."""
    if not any(passage.tokens for passage in passages):
        raise RequestError("the texts have no tokens")
    longest = min(max(len(passage.tokens) for passage in passages), PASSAGE_TOKENS, model.context_trained)
    rows = min(longest, _ROWS)
    params = ContextParams(longest, 1, rows, rows, threads=threads or default_threads())
    with Context(model, params) as context:
        for done, passage in enumerate(passages, 1):
            for start in range(0, min(len(passage.tokens), longest), rows):
                part = passage.tokens[start : min(start + rows, longest)]
                for place, row in enumerate(context.decode([Span(0, start, part, len(part))]), start):
                    in_answer = passage.answer is not None and place >= passage.answer - 1
                    yield in_answer, np.exp(log_softmax(context.logits_row(row), np.float64))
            context.clear(0)
            progress(done, len(passages))
