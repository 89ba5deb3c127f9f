"""Questions that are set aside to measure on, without near-duplicates among those that are learned from.

Sets of word problems hold variations of one problem. An adapter gains more on a variation of what it was
trained on than on another question, so one that is measured on variations seems better than it is.
"""

import re
import unicodedata
from collections.abc import Sequence

from ..errors import OptionError
from ..runtime.arithmetic.lexer import WORDS
from .rows import TrainingRow, shuffle_rows

_SENTENCE_END = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<=[.?!])\s|(?<=[\u3002\uff01\uff1f])"
)
_WORD = re.compile(r"\d[\d.,]*|[^\W\d]+")
_NUMBER_WORDS = WORDS["cardinals"] | WORDS["scales"] | {"half", "twice", "double", "triple"}


def masked_beginning(question: str) -> str:
    """The first sentence of a question without its numbers and names, which near-duplicates share.

    Names are all words with a capital letter. The first word is one, and of capitals alone no other.
    """
    sentence = _SENTENCE_END.split(unicodedata.normalize("NFKC", question).strip(), maxsplit=1)[0]
    sentence = sentence.lower() if sentence.isupper() else sentence
    sentence = sentence[:1].upper() + sentence[1:]
    masked = " ".join(_mask(word) for word in _WORD.findall(sentence))
    return re.sub(r"\b([X0])( \1)+\b", r"\1", masked)


def _mask(word: str) -> str:
    if word[0].isdigit() or word.lower() in _NUMBER_WORDS:
        return "0"
    return "X" if word[0].isupper() else word


def set_aside(
    rows: Sequence[TrainingRow], share: float, seed: int
) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """Shuffle rows, and set whole groups of near-duplicates aside until they are a share of the rows.

    Returns:
        The remaining rows, and those that are set aside.

    Raises:
        OptionError: either would be empty.
    """
    groups: dict[str, list[TrainingRow]] = {}
    for row in shuffle_rows(rows, seed):
        groups.setdefault(masked_beginning(row.question), []).append(row)
    held: list[TrainingRow] = []
    for group in groups.values():
        if len(held) + len(group) <= share * len(rows):
            held += group
    rest = without_near_duplicates(shuffle_rows(rows, seed), held)
    if not held or not rest:
        reason = (
            f"the {len(rows)} questions have {len(groups)} different beginnings; near-duplicates stay "
            "together, so that nothing would be left on one side"
        )
        raise OptionError("held_out", reason, f"{share:g}")
    return rest, held


def without_near_duplicates(rows: Sequence[TrainingRow], others: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows that begin as none of `others`, but for numbers and names."""
    beginnings = {masked_beginning(row.question) for row in others}
    return [row for row in rows if masked_beginning(row.question) not in beginnings]
