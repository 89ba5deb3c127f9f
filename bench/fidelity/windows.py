"""Passages cut to pieces that a model computes in one go, each position measured once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A text by itself, from a passage or a part of one.

    Attributes:
        passage: the number of the passage that it is from.
        tokens: what the model reads.
        start: the first position that counts. Each that does predicts the token after it, so the last is not
            among them.
    """

    passage: int
    tokens: tuple[int, ...]
    start: int

    @property
    def counted(self) -> range:
        """The positions that count."""
        return range(self.start, len(self.tokens) - 1)


def cut_windows(
    passages: Iterable[Sequence[int]], begin: Sequence[int], size: int, positions: int
) -> list[Window]:
    """Cut passages to pieces, and stop when there is enough.

    What a model predicts depends on the tokens up to there and nothing else. So where pieces begin alike, as
    all questions do in a chat, only the first one counts: the others would repeat its measurement.

    Args:
        passages: the tokens of each; no more of them are asked for than are used.
        begin: tokens that every text begins with; a passage that does not has them put before it, and so has
            each of its parts.
        size: the most tokens of a piece, more than `begin` has.
        positions: the most that count in all.
    """
    begin, seen, pieces = tuple(begin), set[tuple[int, ...]](), list[Window]()
    for number, passage in enumerate(passages):
        for tokens in _parts(tuple(passage), begin, size):
            start = next((at for at in range(len(tokens)) if tokens[: at + 1] not in seen), len(tokens))
            piece = Window(number, tokens[: start + positions + 1], start)
            if piece.counted:
                pieces.append(piece)
                positions -= len(piece.counted)
                seen.update(tokens[: at + 1] for at in piece.counted)
            if not positions:
                return pieces
    return pieces


def _parts(passage: tuple[int, ...], begin: tuple[int, ...], size: int) -> Iterable[tuple[int, ...]]:
    body = passage[len(begin) :] if passage[: len(begin)] == begin else passage
    step = size - len(begin)
    return (begin + body[at : at + step] for at in range(0, len(body), step))
