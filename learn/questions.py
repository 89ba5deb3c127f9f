"""A request to learn: its prompt, its questions to learn from, and those to measure on, which differ enough.

Sets of word problems hold variations of one problem. An adapter gains more on a variation of what it was
trained on than on another question, so one that is measured on variations seems better than it is.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import OptionError, RequestError
from ..models.rows import TrainingRow, read_rows, shuffle_rows
from ..runtime.arithmetic.lexer import WORDS
from ..runtime.prompt.question_prompt import PLAIN, QuestionPrompt
from ..stats.intervals import PASSAGES_MIN
from .rollouts import QuestionRollouts

ALL = "all"
DEFAULT, SEARCH = "default", "search"
_SENTENCE_END = re.compile(
    r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<=[.?!])\s|(?<=[\u3002\uff01\uff1f])"
)
_WORD = re.compile(r"\d[\d.,]*|[^\W\d]+")
_NUMBER_WORDS = WORDS["cardinals"] | WORDS["scales"] | {"half", "twice", "double", "triple"}


@dataclass(frozen=True)
class Candidate:
    """A prompt with a name, and its right answers to the questions that it was measured on."""

    name: str
    prompt: QuestionPrompt
    right: int = 0
    asked: int = 0

    @property
    def text(self) -> str:
        """Its name and its right answers."""
        return f"{self.name} ({self.right} of {self.asked} right)" if self.asked else self.name


PLAIN_QUESTION = Candidate("the plain question", PLAIN)


@dataclass(frozen=True, kw_only=True)
class LearnRequest:
    """Options of a run.

    Attributes:
        output: adapter folder to write. It also holds the journals from which an interrupted run resumes.
        minutes: limit of the expected time; of long files only as many questions are used as fit.
        held_out: share of the questions to set aside, a file of others to measure on, or ALL for five folds.
        prompt: what stands around a question: SEARCH for the best of some that are measured first, DEFAULT
            for nothing, a JSON file or an adapter folder with one, or the text of a system prompt.
    """

    questions: Path
    output: Path
    numbers: int = 13
    minutes: float = 60
    held_out: str = "0.3"
    max_tokens: int = 300
    seed: int = 0
    prompt: str = SEARCH

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= 1e6:
            raise OptionError("minutes", "must be above 0 and at most 1000000", self.minutes)
        if self.share is not None and not 0 < self.share < 1:
            raise OptionError("held_out", "must be a share between 0 and 1, a file, or all", self.held_out)

    @property
    def share(self) -> float | None:
        """The share of the questions to set aside; None if a file is given, or `all`."""
        try:
            return float(self.held_out)
        except ValueError:
            return None

    @property
    def in_folds(self) -> bool:
        """Whether each fifth of the questions is answered by numbers that were learned from the others."""
        return self.held_out == ALL

    @property
    def search_share(self) -> float:
        """The share of the questions that a prompt may be chosen on; these cannot be measured on in folds."""
        return (self.prompt == SEARCH) * (0.5 if self.in_folds else 1)

    def given_prompt(self) -> Candidate:
        """The prompt, unless one is searched for.

        Raises:
            FileError: its file is invalid.
        """
        if self.prompt in (DEFAULT, SEARCH):
            return PLAIN_QUESTION
        path = Path(self.prompt)
        if path.suffix == ".json" or os.path.isdir(self.prompt):  # noqa: PTH112 - a text may be long
            if (prompt := QuestionPrompt.read(path)).think:
                raise OptionError("prompt", "its `think` is true, but learning is without thoughts", path)
            return Candidate(path.name, replace(prompt, think=None))
        return Candidate("a system prompt", QuestionPrompt(system=self.prompt))

    def read_questions(self) -> tuple[list[TrainingRow], list[TrainingRow]]:
        """The questions to learn from and to measure on, shuffled; the same ones if all are on both sides.

        Otherwise no near-duplicates are on both.

        Raises:
            RequestError: a file or a row is invalid, or there are too few questions.
        """
        rows = _distinct_rows(self.questions)
        if self.in_folds:
            training = held_out = shuffle_rows(rows, self.seed)
        elif self.share is not None:
            training, held_out = set_aside(rows, self.share, self.seed)
        else:
            held_out = shuffle_rows(_distinct_rows(Path(self.held_out)), self.seed)
            training = without_near_duplicates(shuffle_rows(rows, self.seed), held_out)
        # Worked examples of a given prompt may be of this file.
        shown = [
            TrainingRow(question, "", answer) for question, answer in self.given_prompt().prompt.examples
        ]
        training, held_out = (without_near_duplicates(side, shown) for side in (training, held_out))
        if len(forms := sorted({row.form for row in (*training, *held_out)})) > 1:
            raise RequestError(f"{self.held_out}: its answers are of another form than the others: {forms}")
        kinds, held_out_kinds = beginnings(training), beginnings(held_out)
        if min(kinds, held_out_kinds) < PASSAGES_MIN:
            raise RequestError(
                f"{self.questions}: of {len(rows)} different questions, {len(training)} with {kinds} "
                f"different beginnings are left to learn from and {len(held_out)} with {held_out_kinds} to "
                f"measure on; at least {PASSAGES_MIN} beginnings each are needed"
            )
        return training, held_out


def beginnings(rows: Sequence[TrainingRow | QuestionRollouts]) -> int:
    """The number of questions that are no near-duplicates of each other."""
    return len({masked_beginning(row.question) for row in rows})


def _distinct_rows(path: Path) -> list[TrainingRow]:
    """The rows of a file; of a question that is repeated the last."""
    return [*{row.question: row for row in read_rows(path, ("answer",), any_form=True)}.values()]


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
    shuffled, groups = shuffle_rows(rows, seed), dict[str, list[TrainingRow]]()
    for row in shuffled:
        groups.setdefault(masked_beginning(row.question), []).append(row)
    held: list[TrainingRow] = []
    for group in groups.values():
        if len(held) + len(group) <= share * len(rows):
            held += group
    rest = without_near_duplicates(shuffled, held)
    if not held or not rest:
        reason = (
            f"the {len(rows)} questions have {len(groups)} different beginnings; near-duplicates stay "
            "together, so that nothing would be left on one side"
        )
        raise OptionError("held_out", reason, f"{share:g}")
    return rest, without_near_duplicates(shuffled, rest)  # shuffled, as only the first may be used


def without_near_duplicates(rows: Sequence[TrainingRow], others: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows that begin as none of `others`, but for numbers and names."""
    known = {masked_beginning(row.question) for row in others}
    return [row for row in rows if masked_beginning(row.question) not in known]
