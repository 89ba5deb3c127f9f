"""What is asked of the engine, and what is counted about it: tokens, a reason to stop, the time taken."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeGuard

from ..errors import RequestError
from .grammar.grammar import Grammar

BASE = "base"  # the name of no adapter
LOGPROBS_MAX = 20
_VARIED = 0.7
SEED_MAX = 2**32 - 2  # 2**32 - 1 is llama.cpp's word for "any seed", which would not repeat


class StopReason(StrEnum):
    """Why a sequence ended."""

    END = "end"  # the model said so, with an end-of-turn token
    STOP = "stop"  # the text reached one of the caller's stop strings
    LENGTH = "length"  # max_tokens are out, or the context is full
    ABORTED = "aborted"  # the caller no longer wanted it


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def check_integer(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise RequestError if it is not a whole number from `least`, and to `most` if that is given."""
    if not _whole(value) or value < least:
        raise RequestError(f"{name} must be a whole number from {least}, not {value!r}")
    if most is not None and value > most:
        raise RequestError(f"{name} must be at most {most}, not {value}")


# For each field of Sampling: the test it must pass and how to say it.
_RULES: dict[str, tuple[Callable[..., bool], str]] = {
    "temperature": (lambda v: _real(v) and v >= 0, "a finite number from 0"),
    "top_k": (lambda v: _whole(v) and 0 <= v < 2**31, "a whole number from 0"),
    "top_p": (lambda v: _real(v) and 0 < v <= 1, "above 0 and at most 1"),
    "min_p": (lambda v: _real(v) and 0 <= v < 1, "from 0 and below 1"),
    "seed": (lambda v: _whole(v) and 0 <= v <= SEED_MAX, f"a whole number from 0 to {SEED_MAX}"),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token always; above, the logits are divided by it.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this much probability; 1 keeps all.
        min_p: keep the tokens at least this likely relative to the likeliest; 0 keeps all.
        seed: the same seed gives the same tokens again.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (holds, rule) in _RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise RequestError(f"sampling: {name} must be {rule}, not {value!r}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @property
    def varied(self) -> "Sampling":
        """This, or where it is greedy, and so would always say the same, this at a temperature of 0.7."""
        return replace(self, temperature=_VARIED) if self.greedy else self

    def seeded(self, answers: int) -> "list[Sampling]":
        """One for each of several answers, with a seed of its own."""
        seeds = ((self.seed + number) % (SEED_MAX + 1) for number in range(answers))
        return [replace(self, seed=seed) for seed in seeds]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a request took in and gave out.

    Attributes:
        prompt_tokens: of the prompt.
        completion_tokens: of the output, with the one that ended the turn.
        cached_tokens: of the prompt, those that the prefix cache had.
        sampled_tokens: of the output, those that the model was asked for; the others were results of sums.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    sampled_tokens: int = 0


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in seconds.

    Attributes:
        prefill_s: from the first batch that held some of its prompt to its first token.
        first_token_s: from submission to its first token; the wait for a slot included.
        decode_s: from its first token to its last.
    """

    prefill_s: float
    first_token_s: float
    decode_s: float

    def prefill_tokens_per_s(self, usage: Usage) -> float:
        """Prompt tokens computed a second; 0 if there was no prefill."""
        return _rate(usage.prompt_tokens - usage.cached_tokens, self.prefill_s)

    def decode_tokens_per_s(self, usage: Usage) -> float:
        """Tokens a second after the first, which the prefill gave; 0 if there was only one."""
        return _rate(usage.completion_tokens - 1, self.decode_s)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt in tokens, and how far and in which way to go on from it.

    Attributes:
        tokens: the prompt.
        max_tokens: how many tokens may follow.
        sampling: how they are chosen.
        stop: texts that end the output, and are not part of it; or one.
        calculator: whether sums in the output get their exact results, which the model is not asked for.
        grammar: what the output must follow, None if it is free; then no sum is completed.
        adapter: by name; None is the engine's default.
        logprobs: for every token that the model chooses, its log-probability and those of so many of the
            likeliest; None spares the look at all logits that this takes.
        ignore_end: go on past end-of-turn tokens, so that a measurement has all the tokens it asked for.
    """

    tokens: tuple[int, ...]
    max_tokens: int = 512
    sampling: Sampling = field(default_factory=Sampling)
    stop: Several[str] = ()
    calculator: bool = False
    grammar: Grammar | None = None
    adapter: str | None = None
    logprobs: int | None = None
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if not self.tokens:
            raise RequestError("request: the prompt is empty")
        check_integer("request: max_tokens", self.max_tokens, 1)
        if self.logprobs is not None and (
            not _whole(self.logprobs) or not 0 <= self.logprobs <= LOGPROBS_MAX
        ):
            raise RequestError(f"request: logprobs must be from 0 to {LOGPROBS_MAX}, not {self.logprobs!r}")
        if self.ignore_end and self.grammar:
            raise RequestError("request: what follows a grammar ends with it, so ignore_end is not for it")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token was, as the model has it before any sampling.

    Attributes:
        token: the one chosen.
        logprob: the natural logarithm of its probability; 0 for a token of a sum's result, which was certain.
        top: the likeliest tokens with theirs, as many as asked for, the likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceEnd:
    """The end of a request."""

    stop_reason: StopReason
    usage: Usage
    timings: Timings
    log_likelihood: float = 0.0


@dataclass(slots=True, eq=False)
class SequenceState:
    """A request on its way: what has been computed and said so far.

    Attributes:
        request: what was asked.
        context: the tokens that its slot can hold.
        adapter: the name of what is applied to it.
        slot: the engine's native sequence it runs in; None while it waits or once it has ended.
        restored: how many tokens of its prompt came from the prefix cache.
        computed: how many of its tokens have keys and values in the slot.
        output: the tokens chosen so far.
        draft: tokens that may be the next ones, to be computed along.
        sampled: how many of them the model was asked for; the others were results of sums.
        log_likelihood: of the tokens that the model was asked for, if the request wants log-probabilities.
        stop_reason: why it ended; None while it has not.
    """

    request: Request
    context: int
    adapter: str = BASE
    slot: int | None = None
    restored: int = 0
    computed: int = 0
    output: list[int] = field(default_factory=list)
    draft: tuple[int, ...] = ()
    sampled: int = 0
    log_likelihood: float = 0.0
    stop_reason: StopReason | None = None
    # In seconds of time.perf_counter(); 0 while it has not happened.
    submitted_at: float = 0.0
    started_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0

    @property
    def length(self) -> int:
        """Tokens known: the prompt and the output."""
        return len(self.request.tokens) + len(self.output)

    @property
    def pending(self) -> int:
        """Known tokens that have yet to go through the model."""
        return self.length - self.computed

    @property
    def decoding(self) -> bool:
        """Whether the prompt is done, so that each step gives one more token."""
        return bool(self.output)

    @property
    def remaining(self) -> int:
        """How many tokens can follow: of those asked for, as many as there is room for, and one after it."""
        return min(self.request.max_tokens - len(self.output), self.context + 1 - self.length)

    @property
    def full(self) -> bool:
        """Whether nothing more can follow."""
        return self.remaining <= 0

    @property
    def usage(self) -> Usage:
        """Tokens in and out so far; a token that ended the turn is counted, though it is no output."""
        ended = self.stop_reason is StopReason.END
        return Usage(len(self.request.tokens), len(self.output) + ended, self.restored, self.sampled)

    @property
    def timings(self) -> Timings:
        """Times so far; all zero before the first token."""
        if not self.first_token_at:
            return Timings(0.0, 0.0, 0.0)
        return Timings(
            prefill_s=self.first_token_at - self.started_at,
            first_token_s=self.first_token_at - self.submitted_at,
            decode_s=self.last_token_at - self.first_token_at,
        )

    @property
    def end(self) -> SequenceEnd:
        """What is told of it when it has ended."""
        assert self.stop_reason is not None, "it has ended"
        return SequenceEnd(self.stop_reason, self.usage, self.timings, self.log_likelihood)

    def next_tokens(self, limit: int) -> tuple[int, ...]:
        """Up to `limit` of the pending tokens, in order."""
        prompt = self.request.tokens
        if self.computed < len(prompt):
            return prompt[self.computed : self.computed + limit]
        start = self.computed - len(prompt)
        return tuple(self.output[start : start + limit])
