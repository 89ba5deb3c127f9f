"""An answer: text, final value, checked equations, usage and timings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .request import StopReason, Timings, Usage

if TYPE_CHECKING:
    from .arithmetic.calculator import Step


@dataclass(frozen=True, slots=True)
class VoteTally:
    """How a vote went.

    Attributes:
        asked: how many answers were wanted.
        ended: how many there were when it was decided.
        votes: for each value, how many of these had it, the most first.
    """

    asked: int
    ended: int
    votes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question got.

    Attributes:
        value: the final answer, as format_number() writes it; None where the text gives none.
        text: all that the model wrote.
        stop_reason: why it stopped there.
        usage: tokens in and out.
        timings: where the time went.
        steps: every equation of the text that is understood, and whether it holds.
        verified: whether all steps hold and the final answer is the result of one of them.
        tally: what other answers to the question were, if there was a vote.
    """

    value: str | None
    text: str
    stop_reason: StopReason
    usage: Usage
    timings: Timings
    steps: "tuple[Step, ...]"
    verified: bool
    tally: VoteTally | None = None
