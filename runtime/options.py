"""A request: its prompt in tokens, and its options, all that a question or a conversation can ask for.

With more effort, answers are sampled until the leading value is certain to stay ahead (Aggarwal et al.,
"Let's Sample Step by Step: Adaptive-Consistency", 2023, arXiv 2305.11860), by the paper's Beta criterion:
under a uniform prior, after v1 answers with the leading value and v2 with the next, the first is the likelier
one with the probability P(X <= v1), where X is binomial with v1 + v2 + 1 trials of 1/2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import comb, exp, log
from operator import index
from typing import TYPE_CHECKING, TypeGuard

from ..errors import RequestError, shorten

if TYPE_CHECKING:
    from .grammar import Grammar
    from .prompt.question_prompt import QuestionPrompt

LOGPROBS_MAX = 20
SEED_MAX = 2**32 - 2  # 2**32 - 1 is LLAMA_DEFAULT_SEED: llama.cpp draws a random seed
BIAS_MAX = 100  # as in OpenAI's API: so large a bias forbids a token, or leaves no other; also of penalties
TEMPERATURE_MIN = 1e-4  # below, logits divided by it overflow; so low a temperature is greedy in all but name
_STOCHASTIC_TEMPERATURE = 0.7
_TOP_K = 40
_INT_MAX = 2**31 - 1
_INTEGERS = {
    "top_k": (0, _INT_MAX),
    "seed": (0, SEED_MAX),
    "repeat_last_n": (-1, _INT_MAX),
    "max_tokens": (1, _INT_MAX),
    "think_budget": (0, _INT_MAX),
    "logprobs": (0, LOGPROBS_MAX),
}
_NUMBERS = {
    "temperature": (0, 1_000_000),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0.01, BIAS_MAX),
    "presence_penalty": (-BIAS_MAX, BIAS_MAX),
    "frequency_penalty": (-BIAS_MAX, BIAS_MAX),
    "min_confidence": (0, 0.999999),
}
_TYPES = {"system": str, "adapter": str, "namespace": str, "think": bool}


# Logistic regression of votes, by answers of Qwen2.5-Coder-0.5B; see docs/figures.md.
CONFIDENCE = {"intercept": -4.8, "certainty": 5.7, "grounded": 0.68}


@dataclass(frozen=True, slots=True)
class VotingRule:
    """How many answers are sampled at most, and when fewer are enough."""

    answers: int = 1  # maximum answers
    width: int = 1  # how many of them are sampled at once, at most
    certainty: float = 1.0  # that the leading value is the likelier one: enough
    examples: int = 0  # how many of the first are sampled after worked examples, which makes them short
    sure: float = 0.0  # certainty up to which more are sampled, while the missing ones can bring it

    def is_decided(self, first: int, second: int, missing: int) -> bool:
        """Whether `first` votes against `second` are certain, or the missing answers cannot change it."""
        certain, possible = (majority_certainty(votes, second) for votes in (first, first + missing))
        decided = first > second + missing or certain >= self.certainty
        return not missing or (decided and not certain < self.sure <= possible)

    def wave(self, first: int, second: int, missing: int) -> int:
        """How many answers are sampled next where a question waits for all of them, as in batches.

        No more than can decide: as many as would if all agreed with the leader. All, if all are wanted.
        """
        counts = range(1, missing + 1)
        deciding = (n for n in counts if self.is_decided(first + n, second, missing - n))
        return missing if self.width == self.answers else min(next(deciding), self.width)

    def until(self, confidence: float) -> "VotingRule":
        """The rule that samples on until a grounded answer can be so sure, from 0 and below 1."""
        if not confidence:
            return self
        log_odds = log(confidence / (1 - confidence)) - CONFIDENCE["intercept"] - CONFIDENCE["grounded"]
        return replace(self, sure=log_odds / CONFIDENCE["certainty"])


def majority_certainty(first: int, second: int) -> float:
    """Probability that the value with `first` votes is likelier than the one with `second`."""
    trials = first + second + 1
    return float(sum(comb(trials, at) for at in range(first + 1)) / 2**trials)


def vote_confidence(first: int, second: int, grounded: bool) -> float:
    """Calibrated probability that the value with `first` votes is right, where the next one has `second`.

    For `grounded`, see answer.py.
    """
    log_odds = CONFIDENCE["intercept"] + CONFIDENCE["certainty"] * majority_certainty(first, second)
    return 1 / (1 + exp(-log_odds - CONFIDENCE["grounded"] * grounded))


class Effort(StrEnum):
    """How much is computed for an answer."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    def for_question(self, question: str) -> "Effort":
        """The effort that a question gets: low without a number in it, since there is nothing to vote on."""
        from .arithmetic.equations import has_number  # noqa: PLC0415 - see answer.read_value()

        return self if self.votes and has_number(question) else Effort.LOW

    @property
    def votes(self) -> bool:
        """Whether several answers are sampled."""
        return self is not Effort.LOW

    @property
    def rule(self) -> VotingRule:
        """How many answers are sampled."""
        return _RULES[self]


_RULES = {
    Effort.LOW: VotingRule(),
    Effort.MEDIUM: VotingRule(8, 4, 0.85, examples=7),
    Effort.HIGH: VotingRule(10, 4, 0.9, examples=8),
}


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite int or float, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _require(valid: bool, name: str, expected: str, value: object) -> None:
    if not valid:
        raise RequestError(f"{name} must be {expected}, not {shorten(value)}")


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise RequestError unless `value` is an integer from `minimum` to `maximum`; None is no upper limit."""
    valid = is_integer(value) and value >= minimum and (maximum is None or value <= maximum)
    limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    _require(valid, name, f"an integer {limits}", value)


def check_type(name: str, value: object, kind: type) -> None:
    """Raise RequestError unless `value` is of a type."""
    _require(isinstance(value, kind), name, "a string" if kind is str else f"a {kind.__name__}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request asks for; None leaves the choice to the engine. Invalid values are a RequestError."""

    temperature: float = 0.0  # divides the logits; 0 is greedy
    top_k: int = _TOP_K  # keep so many of the likeliest tokens; 0 is all
    top_p: float = 0.95  # keep the likeliest up to this cumulative probability
    min_p: float = 0.05  # keep those with this fraction of the likeliest's probability
    seed: int = 0  # equal seeds give equal tokens
    repeat_penalty: float = 1.0  # divides positive logits of tokens of the answer, multiplies negative ones
    presence_penalty: float = 0.0  # subtracted from logits of tokens of the answer
    frequency_penalty: float = 0.0  # subtracted for each time that the answer has the token
    repeat_last_n: int = -1  # tokens that the penalties look at; -1 is all
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # added to logits
    max_tokens: int | None = None  # of answer and thought; default 512, or 2,048 for a model that thinks
    stop: Sequence[str] = ()  # strings that end the answer, and are no part of it
    calculator: bool = True  # complete "12 * 13 =" with the exact result
    grammar: "Grammar | None" = None  # constrains the answer; turns the calculator off
    adapter: str | None = None  # one of the engine's, or "base"; by default its own
    effort: Effort = Effort.LOW  # how many answers are sampled
    min_confidence: float = 0.0  # below it, the answer has no value
    think: bool | None = None  # before the answer; by default as prompt or template say
    think_budget: int | None = None  # default three quarters of max_tokens; 0 is no thought
    system: str | None = None
    prompt: "QuestionPrompt | None" = None  # text around the question; by default that of the adapter
    logprobs: int | None = None  # of sampled tokens, with so many likeliest
    namespace: str = ""  # of the prefix cache: others learn nothing of the prompt
    report_end: bool = False  # also the log-probability of the end
    ignore_end: bool = False  # go on after it: a benchmark gets max_tokens
    stop_repeated_calls: bool = False  # end at a tool call that the answer already has

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        _require(self.effort in [*Effort], "effort", ", ".join(Effort), self.effort)
        set_field(self, "effort", Effort(self.effort))
        set_field(self, "stop", _stop_strings(self.stop))
        for name, (low, high) in (_INTEGERS | _NUMBERS).items():
            value = getattr(self, name)
            kind, valid = ("an integer", is_integer) if name in _INTEGERS else ("a number", is_finite)
            in_range = value is None or (valid(value) and low <= value <= high)
            _require(in_range, name, f"{kind} from {low} to {high}", value)
        is_warm = self.temperature == 0 or self.temperature >= TEMPERATURE_MIN
        _require(is_warm, "temperature", f"0 or at least {TEMPERATURE_MIN}", self.temperature)
        biases = f"a map of tokens to numbers from {-BIAS_MAX} to {BIAS_MAX}"
        _require(_is_bias(self.logit_bias), "logit_bias", biases, self.logit_bias)
        for name, type_ in _TYPES.items():
            if getattr(self, name) is not None:
                check_type(name, getattr(self, name), type_)
        if self.effort.votes and (self.grammar or self.logprobs is not None):
            other = "a grammar" if self.grammar else "logprobs"
            raise RequestError(f"effort {self.effort} cannot be combined with {other}: the answers vote")
        if self.ignore_end and self.grammar:
            raise RequestError("ignore_end cannot be combined with a grammar, which ends the output")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always chosen."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def penalizes(self) -> bool:
        """Whether the tokens of the answer so far change the logits."""
        penalties = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0) and self.repeat_last_n != 0

    @property
    def thinks(self) -> bool | None:
        """Whether the model is asked to think; None leaves it to the chat template."""
        if self.think is False or self.think_budget == 0:
            return False
        return True if self.think_budget else self.think

    @property
    def stochastic(self) -> "Options":
        """These options; if greedy, with a temperature of 0.7, since greedy samples would all be equal."""
        if not self.greedy:
            return self
        top_k = _TOP_K if self.top_k == 1 else self.top_k
        return replace(self, temperature=_STOCHASTIC_TEMPERATURE, top_k=top_k)

    def with_seeds(self, samples: int) -> "list[Options]":
        """The options of several samples, with consecutive seeds."""
        return [replace(self, seed=(self.seed + index) % (SEED_MAX + 1)) for index in range(samples)]


def _stop_strings(stop: object) -> tuple[str, ...]:
    texts = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Sequence) else (None,)
    valid = all(isinstance(text, str) and text for text in texts)
    _require(valid, "stop", "a sequence of non-empty strings", stop)
    return texts


def _is_bias(biases: object) -> bool:
    return isinstance(biases, Mapping) and all(
        is_integer(token) and is_finite(bias) and abs(bias) <= BIAS_MAX for token, bias in biases.items()
    )


BASE = "base"  # adapter name of a request for the model without an adapter
DEFAULT_ADAPTER = "adapter"  # name of the adapter that an engine is given without a name
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt in tokens, and how to continue it. Engine.submit() checks it against the model."""

    tokens: tuple[int, ...]  # the prompt, at least one token; any sequence of integers becomes a tuple
    options: Options = field(default_factory=Options)  # how to continue it
    question: str = ""  # what was asked, with all that was said before; it grounds the numbers of the answer
    examples: tuple[int, ...] = ()  # the prompt after worked examples, for some answers of a vote

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "tokens", tuple(map(index, self.tokens)))
        except TypeError:
            raise RequestError("the tokens of a prompt must be a sequence of integers") from None
