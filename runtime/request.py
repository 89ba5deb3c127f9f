"""Types that the engine's packages share: request, sampling parameters, sequence state, usage, timings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import index
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from ..errors import RequestError, shorten
from .confidence import Calibration
from .effort import Effort
from .validation import check_confidence, check_integer, check_type, is_finite, is_integer

if TYPE_CHECKING:  # it imports llguidance, which only requests with a grammar need
    from .grammar.grammar import Grammar

BASE = "base"  # adapter name of a request for the model without an adapter
DEFAULT_ADAPTER = "adapter"  # name of the adapter that an engine is given without one
MAX_TOKENS = 512
LOGPROBS_MAX = 20
SEED_MAX = 2**32 - 2  # 2**32 - 1 is LLAMA_DEFAULT_SEED: llama.cpp draws a random seed
BIAS_MAX = 100  # as in OpenAI's API: so large a bias forbids a token, or leaves no other; also of penalties
TEMPERATURE_MIN = 1e-4  # below, logits divided by it overflow; so low a temperature is greedy in all but name
_STOCHASTIC_TEMPERATURE = 0.7
_TOP_K = 40


class StopReason(StrEnum):
    """Why a sequence ended."""

    END = "end"  # the model generated an end-of-generation token
    STOP = "stop"  # the text contains a stop string
    LENGTH = "length"  # max_tokens or the context is used up
    ABORTED = "aborted"


COMPLETE_REASONS = (StopReason.END, StopReason.STOP)  # of an answer that was not cut short

# Field of Sampling -> predicate and its wording in the error.
_RULES: dict[str, tuple[Callable[..., bool], str]] = {
    "temperature": (
        lambda v: is_finite(v) and (v == 0 or v >= TEMPERATURE_MIN),
        f"0 or a finite number of at least {TEMPERATURE_MIN}",
    ),
    "top_k": (lambda v: is_integer(v) and 0 <= v < 2**31, f"an integer from 0 to {2**31 - 1}"),
    "top_p": (lambda v: is_finite(v) and 0 < v <= 1, "above 0 and at most 1"),
    "min_p": (lambda v: is_finite(v) and 0 <= v < 1, "from 0 and below 1"),
    "seed": (lambda v: is_integer(v) and 0 <= v <= SEED_MAX, f"an integer from 0 to {SEED_MAX}"),
    "repeat_penalty": (lambda v: is_finite(v) and 0.01 <= v <= BIAS_MAX, f"from 0.01 to {BIAS_MAX}"),
    **dict.fromkeys(
        ("presence_penalty", "frequency_penalty"),
        (lambda v: is_finite(v) and abs(v) <= BIAS_MAX, f"from {-BIAS_MAX} to {BIAS_MAX}"),
    ),
    "repeat_last_n": (lambda v: is_integer(v) and -1 <= v < 2**31, f"an integer from -1 to {2**31 - 1}"),
    "logit_bias": (
        lambda v: (
            isinstance(v, Mapping)
            and all(
                is_integer(token) and is_finite(bias) and abs(bias) <= BIAS_MAX for token, bias in v.items()
            )
        ),
        f"a mapping of tokens to numbers from {-BIAS_MAX} to {BIAS_MAX}",
    ),
}


class SamplingOptions(TypedDict, total=False):
    """Keywords that replace a value of a Sampling, which documents them."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    repeat_last_n: int
    logit_bias: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters.

    Attributes:
        temperature: divisor of the logits, at least 0.0001; 0 is greedy decoding.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this cumulative probability; 1 keeps all.
        min_p: keep tokens with at least this fraction of the likeliest token's probability; 0 keeps all.
        seed: seed of the random generator; equal seeds give equal tokens.
        repeat_penalty: divides the positive logits of tokens that the answer has, and multiplies their
            negative ones; 1 changes nothing.
        presence_penalty: is subtracted from the logits of tokens that the answer has.
        frequency_penalty: the same, as many times as the answer has the token.
        repeat_last_n: number of the answer's last tokens that penalties look at; -1 for all.
        logit_bias: is added to the logits of these tokens.
    """

    temperature: float = 0.0
    top_k: int = _TOP_K
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = -1
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, (is_valid, rule) in _RULES.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise RequestError(f"sampling: {name} must be {rule}, not {value!r}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always chosen."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def penalizes(self) -> bool:
        """Whether what the answer has so far changes the logits."""
        penalties = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0) and self.repeat_last_n != 0

    @property
    def stochastic(self) -> "Sampling":
        """These parameters; if greedy, with a temperature of 0.7: greedy samples would all be equal."""
        if not self.greedy:
            return self
        top_k = _TOP_K if self.top_k == 1 else self.top_k
        return replace(self, temperature=_STOCHASTIC_TEMPERATURE, top_k=top_k)

    def with_seeds(self, samples: int) -> "list[Sampling]":
        """Return the parameters of several samples, with consecutive seeds."""
        return [replace(self, seed=(self.seed + index) % (SEED_MAX + 1)) for index in range(samples)]


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


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0


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
        """Return the prefill throughput, without cached tokens; 0 if nothing was computed."""
        return _rate(usage.prompt_tokens - usage.cached_tokens, self.prefill_s)

    def decode_tokens_per_s(self, usage: Usage) -> float:
        """Return the decode throughput; the first token is part of prefill. 0 if there is no other."""
        return _rate(usage.completion_tokens - 1, self.decode_s)


class PrefixKey(NamedTuple):
    """Key of a part of the prefix cache: an adapter and a namespace."""

    adapter: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt in tokens, and how to continue it.

    Attributes:
        tokens: the prompt, at least one token; any sequence of integers becomes a tuple.
        max_tokens: maximum completion tokens.
        think_budget: tokens after which a thought before the answer is ended; by default, and at most, three
            quarters of those that there is room for. 0 looks for no thought: the whole output is the answer.
        sampling: sampling parameters.
        stop: strings that end the answer and are not part of it; one string becomes a tuple.
        calculator: whether arithmetic in the output is completed with its exact result instead of sampled
            tokens.
        grammar: constrains the output and turns the calculator off; None leaves the output free.
        adapter: name of an adapter of the engine; None is the engine's default.
        logprobs: number of likeliest tokens to report with the log-probability of each sampled token. None
            reports neither, which saves a pass over all logits.
        report_end: whether the log-probabilities include that of a sampled end-of-generation token.
        namespace: namespace of the prefix cache; clients of other namespaces learn nothing of the prompt.
        turn: requests of the same name share the slots with those of others; by default the namespace.
        question: what was asked, with all that was said before; it grounds the numbers of the answer.
        foreign_share: Model.foreign_share() of the question, for its answer.
        effort: how many answers are sampled, of which the majority's is taken.
        examples: the prompt with worked examples before the question, for the first answers of a vote; none
            if empty.
        min_confidence: confidence below which the answer's value is withheld.
        calibration: the model's, for the confidence in a greedy answer; None for none.
        stop_repeated_calls: whether the answer ends with a tool call that it has already.
        ignore_end: whether to continue after end-of-generation tokens, so that a benchmark gets exactly
            max_tokens.
    """

    tokens: tuple[int, ...]
    max_tokens: int = MAX_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    calculator: bool = False
    grammar: "Grammar | None" = None
    adapter: str | None = None
    logprobs: int | None = None
    report_end: bool = False
    ignore_end: bool = False
    stop_repeated_calls: bool = False
    calibration: Calibration | None = None
    question: str = ""
    foreign_share: float | None = None
    namespace: str = ""
    turn: str = ""
    effort: Effort = Effort.LOW
    examples: tuple[int, ...] = ()
    min_confidence: float = 0.0
    think_budget: int | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "tokens", tuple(map(index, self.tokens)))
        except TypeError:
            raise RequestError("request: tokens must be a sequence of integers") from None
        if not self.tokens:
            raise RequestError("request: the prompt is empty")
        if not (isinstance(self.stop, Sequence) and all(isinstance(one, str) for one in self.stop)):
            raise RequestError(f"request: stop must be a sequence of strings, not {shorten(self.stop)}")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        for name in ("namespace", "turn", "question"):
            check_type(f"request: {name}", getattr(self, name), str)
        check_integer("request: max_tokens", self.max_tokens, 1)
        if self.think_budget is not None:
            check_integer("request: think_budget", self.think_budget, 0)
        if self.logprobs is not None:
            check_integer("request: logprobs", self.logprobs, 0, LOGPROBS_MAX)
        check_type("request: sampling", self.sampling, Sampling)
        if self.adapter is not None:
            check_type("request: adapter", self.adapter, str)
        if self.grammar is not None and not hasattr(self.grammar, "source"):
            raise RequestError(f"request: grammar must be a Grammar, not {shorten(self.grammar)}")
        check_type("request: effort", self.effort, Effort)
        check_confidence(self.min_confidence)
        for name, given in (("a grammar", self.grammar), ("logprobs", self.logprobs is not None)):
            if given and self.effort.votes:
                raise RequestError(
                    f"request: effort {self.effort} cannot be combined with {name}: the answers vote"
                )
        if self.ignore_end and self.grammar:
            raise RequestError("request: ignore_end cannot be combined with a grammar, which ends the output")


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
        log_likelihood: sum of the sampled tokens' log-probabilities, if the request asks for them, or has a
            calibration.
        token_s: seconds from submission to each token of the output.
        thinking: the thought before the answer.
    """

    stop_reason: StopReason
    usage: Usage
    timings: Timings
    log_likelihood: float = 0.0
    token_s: tuple[float, ...] = ()
    thinking: str = ""


@dataclass(slots=True, eq=False)
class SequenceState:
    """State of a request in the engine.

    Attributes:
        request: the request.
        context: tokens that its slot can hold.
        adapter: name of its adapter.
        slot: slot of the KV cache; None while it waits and after it has ended.
        cached: prompt tokens restored from the prefix cache.
        computed: tokens whose KV cache is in the slot.
        saves: positions in its prompt, descending, at which a batch ends because it is saved there.
        output: generated tokens.
        output_at: time of each of them.
        sampled: number of output tokens sampled from the model; the calculator or a grammar inserted the
            others.
        log_likelihood: sum of the sampled tokens' log-probabilities, if the request asks for them, or has a
            calibration.
        thinking: the thought before the answer, once it has ended.
        thinking_tokens: number of its tokens.
        stop_reason: why it ended; None while it has not.
        submitted_at: time of submission in seconds of time.perf_counter(), as all times here.
        started_at: time of its first batch; 0 before it.
        first_token_at: time of the first generated token; 0 before it.
        last_token_at: time of the last generated token; 0 before the first.
    """

    request: Request
    context: int
    adapter: str = BASE
    slot: int | None = None
    cached: int = 0
    computed: int = 0
    saves: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    output_at: list[float] = field(default_factory=list)
    sampled: int = 0
    log_likelihood: float = 0.0
    thinking: str = ""
    thinking_tokens: int = 0
    stop_reason: StopReason | None = None
    submitted_at: float = 0.0
    started_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0

    @property
    def turn(self) -> str:
        """Name under which it shares the slots with others; see Request.turn."""
        return self.request.turn or self.request.namespace

    @property
    def prefix_key(self) -> PrefixKey:
        """Key of its prompt in the prefix cache."""
        return PrefixKey(self.adapter, self.request.namespace)

    @property
    def running_slot(self) -> int:
        """The slot of a running sequence."""
        assert self.slot is not None, "a running sequence has a slot"
        return self.slot

    @property
    def length(self) -> int:
        """Tokens of prompt and output."""
        return len(self.request.tokens) + len(self.output)

    @property
    def pending(self) -> int:
        """Tokens that are known but not computed."""
        return self.length - self.computed

    @property
    def decoding(self) -> bool:
        """Whether prefill is done."""
        return bool(self.output)

    @property
    def remaining(self) -> int:
        """Tokens that can follow; the last one needs no place in the context."""
        return min(self.request.max_tokens - len(self.output), self.context + 1 - self.length)

    @property
    def usage(self) -> Usage:
        """Token counts so far; the end-of-generation token counts, though it is not in the output."""
        ended = self.stop_reason is StopReason.END
        prompt, completion = len(self.request.tokens), len(self.output) + ended
        return Usage(prompt, completion, self.cached, self.sampled, self.thinking_tokens)

    @property
    def timings(self) -> Timings:
        """Latencies so far; all 0 before the first token."""
        if not self.first_token_at:
            return Timings(0.0, 0.0, 0.0)
        return Timings(
            prefill_s=self.first_token_at - self.started_at,
            first_token_s=self.first_token_at - self.submitted_at,
            decode_s=self.last_token_at - self.first_token_at,
        )

    @property
    def end(self) -> SequenceEnd:
        """Result of the sequence, which must have ended."""
        assert self.stop_reason is not None, "the sequence has ended"
        token_s = tuple(at - self.submitted_at for at in self.output_at)
        likelihood, thinking = self.log_likelihood, self.thinking
        return SequenceEnd(self.stop_reason, self.usage, self.timings, likelihood, token_s, thinking)

    def next_tokens(self, limit: int) -> tuple[int, ...]:
        """Return up to `limit` pending tokens, in order, none of them behind a position where it is saved."""
        prompt = self.request.tokens
        if self.saves:
            limit = min(limit, self.saves[-1] - self.computed)
        if self.computed < len(prompt):
            return prompt[self.computed : self.computed + limit]
        start = self.computed - len(prompt)
        return tuple(self.output[start : start + limit])
