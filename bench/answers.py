"""What a report tells of accuracy: the part of `thirteen bench accuracy --json` that is read here."""

from dataclasses import dataclass

from .ratio import Interval


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's answers: how many came to what, and the part that is right, with its interval."""

    questions: int
    correct: int
    wrong: int
    truncated: int
    unparsed: int
    errors: int
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Side:
    """One model: its file, the file's hash, and its scores."""

    path: str
    sha256: str
    scores: Scores


@dataclass(frozen=True, slots=True)
class Paired:
    """Both models' answers to the same questions: see bench accuracy."""

    questions: int
    gained: int
    lost: int
    difference: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Terms:
    """How the questions were put."""

    prompt: str


@dataclass(frozen=True, slots=True)
class Answers:
    """Base and adapted on one set of questions.

    Attributes:
        date: when they were asked, in UTC.
        terms: how.
        data: the set's name.
        adapted: the model that was asked for.
        base: what it was compared with; None if nothing.
        paired: both side by side; None without a base.
        verdict: what it comes to in words, a line each.
    """

    date: str
    terms: Terms
    data: str
    adapted: Side
    base: Side | None
    paired: Paired | None
    verdict: tuple[str, ...]
