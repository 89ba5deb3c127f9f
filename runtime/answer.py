"""Answer to a question: text, value, confidence, checked equations, usage, timings, votes; and its pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from .arithmetic import Step
from .confidence import Calibration
from .effort import vote_confidence
from .request import Request

if TYPE_CHECKING:
    from .arithmetic.equations import Reading


class StopReason(StrEnum):
    """Why an answer ended."""

    END = "end"  # the model generated an end-of-generation token
    STOP = "stop"  # the text contains a stop string
    LENGTH = "length"  # max_tokens or the context is used up
    ABORTED = "aborted"


COMPLETE_REASONS = (StopReason.END, StopReason.STOP)  # of an answer that was not cut short


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request.

    Attributes:
        prompt_tokens: tokens of the prompt.
        completion_tokens: generated tokens, including the end-of-generation token, sampled or implied by a
            grammar that allows nothing else.
        cached_tokens: prompt tokens restored from the prefix cache.
        sampled_tokens: completion tokens sampled from the model; the calculator or a grammar inserted the
            others.
        thinking_tokens: completion tokens of thoughts, with their markers.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    sampled_tokens: int = 0
    thinking_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Latencies of a request, in seconds.

    Attributes:
        prefill_s: time from the first batch with tokens of the prompt to the first generated token.
        first_token_s: time from submission to the first generated token (TTFT), including the wait for a
            slot.
        decode_s: time from the first generated token to the last.
    """

    prefill_s: float
    first_token_s: float
    decode_s: float

    def prefill_tokens_per_s(self, usage: Usage) -> float:
        """Prefill throughput without cached tokens; 0 if nothing was computed."""
        return _rate(usage.prompt_tokens - usage.cached_tokens, self.prefill_s)

    def decode_tokens_per_s(self, usage: Usage) -> float:
        """Decode throughput; the first token is part of prefill. 0 if there is no other."""
        return _rate(usage.completion_tokens - 1, self.decode_s)


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of a token under the model, before sampling.

    Attributes:
        token: the chosen token.
        logprob: natural logarithm of its probability; 0 for a token that the calculator or a grammar
            inserted.
        top: the likeliest tokens with their log-probabilities, in descending order.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceEnd:
    """Result of a finished sequence.

    Attributes:
        stop_reason: why it ended.
        usage: token counts.
        timings: latencies.
        log_likelihood: sum of the sampled tokens' log-probabilities, where they were computed.
        token_s: seconds from submission to each token of the output.
        thinking: the thought before the answer.
    """

    stop_reason: StopReason
    usage: Usage
    timings: Timings
    log_likelihood: float = 0.0
    token_s: tuple[float, ...] = ()
    thinking: str = ""


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
        confidence: calibrated probability that the value is right; None without a value, and for a single
            answer that was sampled, or of a model without a calibration, see confidence.py.
        sure: whether the confidence is at least the request's `min_confidence`, the text was not cut off, and
            no vote was a tie; otherwise there is no value.
        grounded: whether it is verified, and every number of its equations is in the question, in what was
            said before, or the result of an earlier equation.
        thinking: the thought before the answer; empty if the model does not think.
        unread: number of sentences with an equals sign that the grammar does not read.
        violation: which keyword of the request's JSON schema the text violates, and where, as llguidance does
            not enforce all of them; None if it is valid or was cut off, and without a schema.
    """

    value: str | None
    text: str
    stop_reason: StopReason
    usage: Usage
    timings: Timings
    steps: tuple[Step, ...]
    verified: bool
    tally: VoteTally | None = None
    grounded: bool = False
    confidence: float | None = None
    sure: bool = True
    thinking: str = ""
    unread: int = 0
    violation: str | None = None

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
        logprobs: log-probabilities of these tokens, if the request asks for them, and with
            Options.report_end that of the token that ended them.
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


def read_value(text: str, question: str = "") -> "tuple[str | None, Reading]":
    """Read the final value of a text, and its equations."""
    # The grammar's words and patterns take 30 ms, which is too long for an import.
    from .arithmetic.equations import read_equations  # noqa: PLC0415
    from .arithmetic.final_answer import final_answer, format_number  # noqa: PLC0415

    number = final_answer(text, question)
    return None if number is None else format_number(number), read_equations(text, question)


def grade(request: Request, calibration: Calibration | None, text: str, end: SequenceEnd) -> Answer:
    """Read the value of an answer's text, check its equations, and tell the confidence in it."""
    from .arithmetic.grounding import is_grounded  # noqa: PLC0415 - see read_value()

    complete = end.stop_reason in COMPLETE_REASONS
    value, reading = read_value(text if complete else f"{text}\u2026", request.question)
    verified = reading.verifies(value)
    confidence = None
    if calibration and complete and value is not None:
        sampled = end.usage.sampled_tokens
        confidence = calibration.confidence(end.log_likelihood, sampled, verified=verified)
    answer = Answer(
        value=value,
        text=text,
        stop_reason=end.stop_reason,
        usage=end.usage,
        timings=end.timings,
        steps=reading.steps,
        verified=verified,
        unread=len(reading.unread),
        confidence=confidence,
        grounded=verified and is_grounded(reading.steps, request.question),
        thinking=end.thinking,
        violation=_violation(request, text) if complete else None,
    )
    return with_confidence(answer, request.options.min_confidence)


def _violation(request: Request, text: str) -> str | None:
    if not request.options.grammar:
        return None
    from .grammar.violation import violation  # noqa: PLC0415 - only answers with a grammar need llguidance

    return violation(request.options.grammar, text)


def with_confidence(answer: Answer, minimum: float) -> Answer:
    """The answer with its confidence; below the minimum, cut off, or after a tie, it has no value."""
    sure, confidence = answer.stop_reason in COMPLETE_REASONS, answer.confidence
    if answer.tally:
        first, second = answer.tally.counts
        voted = sure and answer.value is not None
        confidence = vote_confidence(first, second, answer.grounded) if voted else None
        sure = sure and not (first and first == second)
    sure = sure and (confidence or 0) >= minimum
    return replace(answer, confidence=confidence, sure=sure, value=answer.value if sure else None)
