"""Answer to a question: text, value, confidence, checked equations, usage, timings, votes; and its pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from .arithmetic import Step
from .effort import vote_confidence
from .request import COMPLETE_REASONS, Request, SequenceEnd, StopReason, Timings, TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class VoteTally:
    """Tally of a majority vote.

    Attributes:
        asked: requested answers.
        ended: finished answers when the vote was decided.
        votes: number of finished answers with each value, the winner's first, in descending order. Answers
            that were cut short or have a wrong equation do not vote.
    """

    asked: int
    ended: int
    votes: Mapping[str, int]

    @property
    def counts(self) -> tuple[int, int]:
        """Votes of the leading value, and of the next one."""
        first, second = [*self.votes.values(), 0, 0][:2]
        return first, second

    @property
    def agreement(self) -> str:
        """How many agree, in words."""
        value = next(iter(self.votes), None)
        return (
            f"{self.counts[0]} of {self.ended} agree on {value}" if value else f"{self.ended} without a vote"
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a question.

    Attributes:
        value: final answer as format_number() writes it; None if the text states none, or was cut off.
        text: full text, without the thought before it.
        stop_reason: why the text ended.
        usage: token counts; of all answers that ended, if several were sampled.
        timings: latencies; `decode_s` ends with the last answer that counted.
        steps: equations of the text that the grammar reads, each with whether its arithmetic is right.
        verified: whether all equations were read and hold, and the final answer is the result of one.
        tally: tally of the majority vote that selected this answer; None without a vote.
        foreign_share: share of the question's letters in a script that the file's trimmed vocabulary has no
            tokens for, from 0 to 1; None for a file with all tokens of its base.
        confidence: calibrated probability that the value is right; None without a value, and of a single
            answer that was sampled, or of a model without a calibration, see confidence.py.
        sure: whether it is at least the request's `min_confidence`, and the text was not cut off; otherwise
            there is no value.
        grounded: whether it is verified, and every number of its equations is in the question, in what was
            said before, or the result of an earlier equation.
        thinking: the thought before the answer; empty if the model does not think.
    """

    value: str | None
    text: str
    stop_reason: StopReason
    usage: Usage
    timings: Timings
    steps: tuple[Step, ...]
    verified: bool
    tally: VoteTally | None = None
    foreign_share: float | None = None
    grounded: bool = False
    confidence: float | None = None
    sure: bool = True
    thinking: str = ""

    @property
    def token_rates(self) -> dict[str, float]:
        """Tokens per second of prefill and of decode, by their names in JSON."""
        return {
            "prefill_tokens_per_s": self.timings.prefill_tokens_per_s(self.usage),
            "decode_tokens_per_s": self.timings.decode_tokens_per_s(self.usage),
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of an answer; the last piece also carries the whole answer.

    Attributes:
        text: characters that became final since the last piece.
        tokens: tokens sampled or inserted since the last piece; their text may follow in a later one.
        logprobs: log-probabilities of these tokens, and with Request.report_end of the token that ended them,
            if the request asks for them.
        answer: the whole answer, None while there may be more.
        tally: the votes so far, if there are new ones; of a question that is answered several times.
        end: how the answer ended, None while there may be more.
        thinking: new text of the thought before the answer.
        thinking_tokens: how many of the tokens, the first ones, are the thought's.
    """

    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    answer: Answer | None = None
    tally: VoteTally | None = None
    end: SequenceEnd | None = None
    thinking: str = ""
    thinking_tokens: int = 0

    @property
    def reasoning(self) -> str:
        """How the answer comes about: a line of the votes so far, and the thought."""
        return (f"{self.tally.agreement}\n" if self.tally else "") + self.thinking

    @classmethod
    def joined(cls, pieces: Sequence[Self], answer: Answer | None) -> Self:
        """Join consecutive pieces, and add the whole answer if they are the last."""
        return cls(
            "".join(piece.text for piece in pieces),
            tuple(token for piece in pieces for token in piece.tokens),
            tuple(logprob for piece in pieces for logprob in piece.logprobs),
            answer,
            next((piece.tally for piece in reversed(pieces) if piece.tally), None),
            pieces[-1].end if pieces else None,
            "".join(piece.thinking for piece in pieces),
            sum(piece.thinking_tokens for piece in pieces),
        )


def read_value(text: str, question: str = "") -> tuple[str | None, tuple[Step, ...], bool]:
    """Read the final value of an answer, and its equations; True if all were read and hold, and give it."""
    # Its words and patterns take 30 ms, which is too long for an import.
    from .arithmetic.equations import read_equations  # noqa: PLC0415
    from .arithmetic.final_answer import final_answer, format_number  # noqa: PLC0415

    number, reading = final_answer(text, question), read_equations(text, question)
    value = None if number is None else format_number(number)
    return value, reading.steps, reading.verifies(value)


def grade(request: Request, text: str, end: SequenceEnd) -> Answer:
    """Read the value of an answer's text, check its equations, and tell the confidence in it."""
    from .arithmetic.grounding import is_grounded  # noqa: PLC0415 - see read_value()

    complete = end.stop_reason in COMPLETE_REASONS
    value, steps, verified = read_value(text if complete else f"{text}\u2026", request.question)
    answer = Answer(
        value=value,
        text=text,
        stop_reason=end.stop_reason,
        usage=end.usage,
        timings=end.timings,
        steps=steps,
        verified=verified,
        foreign_share=request.foreign_share,
        confidence=_confidence(request, end, verified) if value is not None and complete else None,
        grounded=verified and is_grounded(steps, request.question),
        thinking=end.thinking,
    )
    return with_confidence(answer, request.min_confidence)


def with_confidence(answer: Answer, minimum: float) -> Answer:
    """The answer with its confidence; below the minimum, or cut off, it is not sure, and has no value."""
    confidence, complete = answer.confidence, answer.stop_reason in COMPLETE_REASONS
    if answer.tally:
        voted = complete and answer.value is not None
        confidence = vote_confidence(*answer.tally.counts, answer.grounded) if voted else None
    sure = complete and (confidence or 0) >= minimum
    return replace(answer, confidence=confidence, sure=sure, value=answer.value if sure else None)


def _confidence(request: Request, end: SequenceEnd, verified: bool) -> float | None:
    if not request.calibration:
        return None
    return request.calibration.confidence(end.log_likelihood, end.usage.sampled_tokens, verified=verified)
