"""Cut passages into windows that a model computes in one batch, with each position scored once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A passage or a part of one, computed on its own.

    Attributes:
        passage: number of the passage.
        tokens: tokens that the model reads.
        start: first position that is scored.
    """

    passage: int
    tokens: tuple[int, ...]
    start: int

    @property
    def scored(self) -> range:
        """Positions that are scored. Each predicts the token after it, so the last one is not among them."""
        return range(self.start, len(self.tokens) - 1)


def cut_windows(
    passages: Iterable[Sequence[int]], prefix: Sequence[int], size: int, positions: int
) -> list[Window]:
    """Cut passages into windows until enough positions are scored.

    A prediction depends only on the tokens up to its position. So where windows share a prefix, as all
    questions of a chat do, it is scored only in the first of them.

    Args:
        passages: tokens of each passage; consumed no further than needed.
        prefix: tokens that every text starts with, such as BOS; added to each window that lacks them.
        size: maximum tokens per window, more than `prefix` has.
        positions: maximum number of scored positions in all.
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
