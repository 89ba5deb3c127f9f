"""How often texts use each token, and the probability that a model gives each token over them."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, RequestError
from ..files.progress import QUIET, Progress, Run
from ..runtime.llama.context import Context, log_softmax
from ..runtime.llama.model import Model
from ..runtime.llama.settings import Settings
from ..runtime.machine import default_threads
from ..stats.arrays import Doubles

PASSAGE_TOKENS = 512  # of a longer passage, the beginning
_ROWS = 128  # rows of logits at once


def count_tokens(model: Model, passages: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Count how often the passages use each token, (vocab,)."""
    tokens = [token for passage in passages for token in passage]
    return np.bincount(np.array(tokens, np.int64), minlength=model.vocabulary_size)


def sample_passages(passages: Sequence[tuple[int, ...]], positions: int) -> list[tuple[int, ...]]:
    """Take passages evenly spread over all, of about `positions` tokens in all, and at least one."""
    sizes = np.array([min(len(passage), PASSAGE_TOKENS) for passage in passages])
    step = max(sizes.sum() / positions, 1.0)
    return [passages[int(place)] for place in np.arange(0, len(passages), step)]


def mean_probability(model: Model, passages: Sequence[tuple[int, ...]], run: Run = QUIET) -> Doubles:
    """Compute the mean over all positions of the probability of each token, (vocab,).

    Raises:
        FileError: a probability is not a finite number.
        RequestError: the passages have no tokens.
    """
    total, positions = np.zeros(model.vocabulary_size), 0
    for probabilities in _predictions(model, passages, run.threads, run.stage("probabilities")):
        total += probabilities
        positions += 1
    if not np.isfinite(total).all():
        raise FileError(f"{model.header.path}: the model's probabilities are not finite numbers")
    return total / positions


def outside_probability(
    model: Model,
    passages: Sequence[tuple[int, ...]],
    order: Sequence[int],
    sizes: Sequence[int],
    run: Run = QUIET,
) -> Doubles:
    """Compute the probability of what vocabularies would not have, (sizes, positions).

    Raises:
        RequestError: the passages have no tokens.
    """
    by_rank, progress = np.array(order), run.stage("probability outside")
    ranked = (row[by_rank] for row in _predictions(model, passages, run.threads, progress))
    return np.array([[row[size:].sum() for size in sizes] for row in ranked]).T


def _predictions(
    model: Model, passages: Sequence[tuple[int, ...]], threads: int | None, progress: Progress
) -> Iterator[Doubles]:
    """Yield the probabilities of all tokens at each position, (vocab,)."""
    if not any(passages):
        raise RequestError("the texts have no tokens")
    longest = min(max(len(passage) for passage in passages), PASSAGE_TOKENS, model.context_trained)
    rows = min(longest, _ROWS)
    settings = Settings(longest, 1, rows, rows, threads=threads or default_threads())
    with Context(model, settings) as context:
        for done, passage in enumerate(passages, 1):
            for row in context.decode_text(passage[:longest]):
                yield np.exp(log_softmax(context.logits_row(row)))
            context.clear(0)
            progress(done, len(passages))
