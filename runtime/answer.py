"""Answer to a question: text, value, confidence, checked equations, usage, timings, votes; and its pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import exp
from typing import TYPE_CHECKING, Self, TypeAlias

from .arithmetic import Step
from .options import Request, vote_confidence

if TYPE_CHECKING:
    from .arithmetic.equations import Reading


# Coefficients of the log-odds that the value of a greedy answer is right: the intercept, for each nat of the
# mean log-probability of the sampled tokens, for each nat of their sum, and if the answer is verified.
Calibration: TypeAlias = tuple[float, float, float, float]
_LOG_ODDS_MAX = 100.0  # beyond some hundred, exp() overflows
_EMBEDDED = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SUMS_840 = "8616f9d00b1cfbc4ee65cd0259eebfdca939d558fe2f73b3dac654f1b7995c13"
# By the base's hash in a conversion or the file's name, type of the weights, and hash of a merged adapter.
_SHIPPED = {
    (_EMBEDDED, 7, _SUMS_840): (-0.28, 5.24, 0.193, 1.72),
    ("Qwen2.5 Coder 0.5B Instruct AWQ", 15, ""): (3.09, 5.95, 0.126, 0.33),
}


def find_calibration(metadata: Mapping[str, object]) -> Calibration | None:
    """The calibration of a GGUF by its metadata; None for a model that is not shipped."""
    base = metadata.get("thirteen.base.sha256", metadata.get("general.name"))
    adapter, weights = metadata.get("thirteen.adapter.sha256", ""), metadata.get("general.file_type")
    return next((found for key, found in _SHIPPED.items() if key == (base, weights, adapter)), None)


class StopReason(StrEnum):
    """Why an answer ended."""

    END = "end"  # the model generated an end-of-generation token
    STOP = "stop"  # the text contains a stop string
    LENGTH = "length"  # max_tokens or the context is used up
    ABORTED = "aborted"


COMPLETE_REASONS = (StopReason.END, StopReason.STOP)  # of an answer that was not cut short


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int  # with the end-of-generation token, also one that a grammar implies
    cached_tokens: int = 0  # prompt tokens restored from the prefix cache
    sampled_tokens: int = 0  # completion tokens sampled from the model
    thinking_tokens: int = 0  # completion tokens of thoughts, with their markers


@dataclass(frozen=True, slots=True)
class Timings:
    """Latencies of a request, in seconds."""

    prefill_s: float  # time from the first batch with tokens of the prompt to the first generated token
    first_token_s: float  # from submission to the first token (TTFT), with the wait for a slot
    decode_s: float  # time from the first generated token to the last

    def token_rates(self, usage: Usage) -> dict[str, float]:
        """Tokens per second of prefill and of decode, by their names in JSON; 0 where nothing was computed.

        Cached tokens are not computed. The first token of the answer is part of prefill.
        """
        prefill, decode = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens - 1
        return {
            "prefill_tokens_per_s": max(prefill, 0) / self.prefill_s if self.prefill_s else 0.0,
            "decode_tokens_per_s": max(decode, 0) / self.decode_s if self.decode_s else 0.0,
        }


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of a token under the model, before sampling."""

    token: int
    logprob: float  # natural logarithm of its probability
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens with their log-probabilities


@dataclass(frozen=True, slots=True)
class SequenceEnd:
    """Result of a finished sequence."""

    stop_reason: StopReason
    usage: Usage
    timings: Timings
    log_likelihood: float = 0.0  # sum of the sampled tokens' log-probabilities, where they were computed
    token_s: tuple[float, ...] = ()  # seconds from submission to each token, also the last
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class VoteTally:
    """Tally of a majority vote."""

    asked: int
    ended: int  # finished answers when the vote was decided
    votes: Mapping[str, int]  # number of finished answers with each value, the winner's first

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
    """Answer to a question."""

    value: str | None  # final answer as format_number() writes it
    text: str  # full text, without the thought before it
    stop_reason: StopReason  # why the text ended
    usage: Usage  # token counts; of all answers that ended, if several were sampled
    timings: Timings  # latencies; `decode_s` ends with the last answer that counted
    steps: tuple[Step, ...]  # equations that the grammar reads
    verified: bool  # whether all equations were read and hold, and the final answer is the result of one
    tally: VoteTally | None = None  # tally of the majority vote that selected this answer
    grounded: bool = False  # whether it is verified, and every number of its equations is in the question
    confidence: float | None = None  # calibrated probability that the value is right
    sure: bool = True  # otherwise there is no value: doubtful, cut off, or after a tie
    thinking: str = ""  # the thought before the answer; empty if the model does not think
    unread: int = 0  # number of sentences with an equals sign that the grammar does not read
    warning: str | None = None  # what of the request's JSON schema is not enforced


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of an answer; the last piece also carries the whole answer."""

    text: str  # characters that became final since the last piece
    tokens: tuple[int, ...] = ()  # tokens sampled or inserted since the last piece
    logprobs: tuple[TokenLogprob, ...] = ()  # of these, and of the end with Options.report_end
    answer: Answer | None = None  # the whole answer, None while there may be more
    tally: VoteTally | None = None  # the votes so far, if there are new ones
    end: SequenceEnd | None = None  # how the answer ended, None while there may be more
    thinking: str = ""  # new text of the thought before the answer
    thinking_tokens: int = 0  # how many of the tokens, the first ones, are the thought's

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
    from .arithmetic.equations import is_grounded  # noqa: PLC0415 - see read_value()

    complete = end.stop_reason in COMPLETE_REASONS
    value, reading = read_value(text if complete else f"{text}\u2026", request.question)
    verified = reading.verifies(value)
    grammar, confidence = request.options.grammar, None
    if calibration and complete and value is not None:
        intercept, mean, total, if_verified = calibration
        by_tokens = total + mean / max(end.usage.sampled_tokens, 1)
        log_odds = intercept + by_tokens * end.log_likelihood + if_verified * verified
        confidence = 1 / (1 + exp(min(-log_odds, _LOG_ODDS_MAX)))
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
        warning=grammar.warning if grammar else None,
    )
    return with_confidence(answer, request.options.min_confidence)


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
