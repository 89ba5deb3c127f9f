"""Logits of models over the same windows of held-out texts, with each position scored once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import FileError, RequestError
from ...models.passages import read_passages, tokenize_passages
from ...runtime.engine.engine import Engine
from ...runtime.llama.context import log_softmax
from ...stats import Doubles, Floats
from .token_map import TokenMap

WINDOW_TOKENS = 256  # limits memory: each model's logits take the width of the vocabulary per token


@dataclass(frozen=True, slots=True)
class Window:
    """A passage or a part of one, computed on its own."""

    passage: int
    tokens: tuple[int, ...]
    start: int  # first position that is scored

    @property
    def scored(self) -> range:
        """Positions that are scored. Each predicts the token after it, so the last one is not among them."""
        return range(self.start, len(self.tokens) - 1)


def cut_windows(
    passages: Iterable[Sequence[int]], prefix: Sequence[int], size: int, positions: int
) -> list[Window]:
    """Cut passages into windows of at most `size` tokens, until enough positions are scored.

    A prefix that windows share, as all questions of a chat do, is scored only in the first of them. Each
    window begins with `prefix`, such as BOS.
    """
    prefix, seen, windows = tuple(prefix), set[tuple[int, ...]](), list[Window]()
    for number, passage in enumerate(passages):
        for tokens in _parts(tuple(passage), prefix, size):
            start = next((at for at in range(len(tokens)) if tokens[: at + 1] not in seen), len(tokens))
            window = Window(number, tokens[: start + positions + 1], start)
            if window.scored:
                windows.append(window)
                positions -= len(window.scored)
                seen.update(tokens[: at + 1] for at in window.scored)
            if not positions:
                return windows
    return windows


def _parts(passage: tuple[int, ...], prefix: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    body = passage[len(prefix) :] if passage[: len(prefix)] == prefix else passage
    step = size - len(prefix)
    return (prefix + body[at : at + step] for at in range(0, len(body), step))


def read_windows(reference: Engine, data: Path, size: int, positions: int) -> list[Window]:
    """Read texts as read_passages() does, tokenize them as the reference does, and cut them.

    Raises:
        RequestError: `data` cannot be read, or holds no text of at least two tokens, or `size` is too small.
    """
    model = reference.model
    prefix = model.tokenize("", special=False, bos=True)
    if size <= len(prefix):
        raise RequestError(f"a model's context leaves windows of {size} tokens: too few to compare texts")
    passages = tokenize_passages(model, read_passages(data))
    windows = cut_windows(passages, prefix=prefix, size=size, positions=positions)
    if not windows:
        raise RequestError(f"{data}: no passage has the two tokens that a prediction takes")
    return windows


class WindowPrediction:
    """Predictions of a model at the positions of a window, which is in the reference's tokens."""

    def __init__(self, model: Engine, window: Window, tokens: TokenMap) -> None:
        """Compute the logits.

        Raises:
            FileError: they are not finite, or the text is too long in the model's tokens.
        """
        path = model.model.header.path
        self._tokens, self._ends = tokens.rewrite(window.tokens)
        if len(self._tokens) > model.context:
            raise FileError(
                f"{path}: {len(window.tokens)} tokens of the reference are {len(self._tokens)} here, "
                f"more than the context of {model.context}: the texts are foreign to this vocabulary"
            )
        self._logits = logits = model.logits(self._tokens)  # (tokens, vocab)
        # The likelihood of the next token mostly needs the same row again.
        self._row = lru_cache(1)(lambda place: log_softmax(logits[place]))
        if not np.isfinite(logits).all():
            raise FileError(f"{path}: the model's logits are not finite numbers")

    def logits(self, at: int) -> Floats:
        """Logits after a token of the reference, (vocab,)."""
        row: Floats = self._logits[self._ends[at]]
        return row

    def log_probabilities(self, at: int) -> Doubles:
        """Log-probabilities after a token of the reference, (vocab,), in nats."""
        return self._row(self._ends[at])

    def nll(self, at: int) -> float:
        """-log p, in nats, of the tokens that the reference's token after `at` is here."""
        places = range(self._ends[at] + 1, self._ends[at + 1] + 1)
        return -sum(float(self._row(place - 1)[self._tokens[place]]) for place in places)
