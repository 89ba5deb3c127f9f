"""Log of an evaluation run: a line per question, written as it finishes, from which the run resumes.

The first line identifies the run; a log of another run is refused. A resumed run has the same records as an
uninterrupted one; see reproducible_batches.py.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

LOGGED_RUN = "sitting"  # kind of run in the first line
TokenCount = Annotated[int, Field(ge=1, lt=1 << 31)]  # of an answer: the end-of-generation token counts


class Outcome(StrEnum):
    """Outcome of a question or of a sample."""

    CORRECT = "correct"
    WRONG = "wrong"
    TRUNCATED = "truncated"  # max_tokens were used up before the answer ended
    UNPARSED = "unparsed"  # a complete answer without a number
    ERROR = "error"  # the question was rejected, as one that does not fit the context: there is no answer


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to a question.

    Attributes:
        value: final number; None if the text has none.
        outcome: outcome of this answer alone.
        verified: whether its equations hold and yield the value.
        tokens: number of tokens.
        text: full text.
    """

    value: str | None
    outcome: Outcome
    verified: bool
    tokens: TokenCount
    text: str


@dataclass(frozen=True, slots=True)
class QuestionRecord:
    """Result of a question.

    Attributes:
        number: index in the set, from 0.
        expected: the right answer.
        value: value of the only sample, or of the majority vote.
        outcome: outcome of that value.
        samples: all answers, in the order of their seeds; empty after an error.
        error: what went wrong; None without an error.
        confidence: probability that the value is right, None if it is not known; see answer.py.
    """

    number: int
    expected: str
    value: str | None
    outcome: Outcome
    samples: tuple[Sample, ...]
    error: str | None = None
    confidence: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)
