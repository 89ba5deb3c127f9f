"""Options of a request: all that a question, a conversation or a raw prompt can ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import RequestError, shorten
from .effort import Effort, parse_effort
from .validation import is_finite, is_integer

if TYPE_CHECKING:
    from .grammar.grammar import Grammar
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request asks for; each field has a default, and None leaves the choice to the engine.

    Attributes:
        temperature: divisor of the logits, at least 0.0001; 0 is greedy decoding.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens up to this cumulative probability; 1 keeps all.
        min_p: keep tokens with at least this fraction of the likeliest token's probability; 0 keeps all.
        seed: equal seeds give equal tokens.
        repeat_penalty: divides the positive logits of tokens that the answer contains, and multiplies their
            negative ones; 1 changes nothing.
        presence_penalty: is subtracted from the logits of tokens that the answer contains.
        frequency_penalty: is subtracted once for each time that the answer contains the token.
        repeat_last_n: how many of the answer's last tokens the penalties look at; -1 for all.
        logit_bias: is added to the logits of these tokens.
        max_tokens: maximum tokens of the answer and its thought; by default 512, or 2,048 for a model that
            thinks.
        stop: strings that end the answer and are not part of it.
        calculator: complete arithmetic such as "12 * 13 =" with its exact result instead of sampled tokens.
        grammar: constrains the answer, see grammar/; turns the calculator off.
        adapter: name of one of the engine's adapters, or "base" for none; by default the engine's own.
        effort: "medium" and "high" sample up to 8 or 10 answers to a question with a number in it, until
            their majority is certain; see effort.py.
        min_confidence: confidence below which the answer has no value.
        think: whether a model that can think before it answers does so; by default as the prompt or the chat
            template says.
        think_budget: tokens after which a thought is ended, at most and by default three quarters of
            `max_tokens`; 0 means no thought.
        system: system prompt.
        prompt: text around the question; by default the prompt that the adapter was learned with.
        logprobs: number of likeliest tokens to report with the log-probability of each sampled token; None
            reports neither.
        namespace: part of the prefix cache; other namespaces learn nothing about the prompt.
        report_end: report the log-probability of the end-of-generation token as well.
        ignore_end: continue after end-of-generation tokens, so that a benchmark gets exactly `max_tokens`.
        stop_repeated_calls: end the answer at a tool call that it already contains.

    Raises:
        RequestError: a value is out of range, has the wrong type, or contradicts another one.
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
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    calculator: bool = True
    grammar: "Grammar | None" = None
    adapter: str | None = None
    effort: Effort = Effort.LOW
    min_confidence: float = 0.0
    think: bool | None = None
    think_budget: int | None = None
    system: str | None = None
    prompt: "QuestionPrompt | None" = None
    logprobs: int | None = None
    namespace: str = ""
    report_end: bool = False
    ignore_end: bool = False
    stop_repeated_calls: bool = False

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "effort", parse_effort(self.effort))
        set_field(self, "stop", _stop_strings(self.stop))
        for name, (low, high) in (_INTEGERS | _NUMBERS).items():
            value = getattr(self, name)
            kind, valid = ("an integer", is_integer) if name in _INTEGERS else ("a number", is_finite)
            if value is not None and not (valid(value) and low <= value <= high):
                raise RequestError(f"{name} must be {kind} from {low} to {high}, not {shorten(value)}")
        if 0 < self.temperature < TEMPERATURE_MIN:
            raise RequestError(f"temperature must be 0 or at least {TEMPERATURE_MIN}, not {self.temperature}")
        if not _is_bias(self.logit_bias):
            raise RequestError(
                f"logit_bias must map tokens to numbers from {-BIAS_MAX} to {BIAS_MAX}, "
                f"not {shorten(self.logit_bias)}"
            )
        for name, kind_ in _TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind_):
                raise RequestError(f"{name} must be a {kind_.__name__}, not {shorten(value)}")
        if self.votes and (self.grammar or self.logprobs is not None):
            other = "a grammar" if self.grammar else "logprobs"
            raise RequestError(f"effort {self.effort} cannot be combined with {other}: the answers vote")
        if self.ignore_end and self.grammar:
            raise RequestError("ignore_end cannot be combined with a grammar, which ends the output")

    @property
    def votes(self) -> bool:
        """Whether several answers are sampled."""
        return self.effort is not Effort.LOW

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
    if not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"stop must be a sequence of non-empty strings, not {shorten(stop)}")
    return texts


def _is_bias(biases: object) -> bool:
    return isinstance(biases, Mapping) and all(
        is_integer(token) and is_finite(bias) and abs(bias) <= BIAS_MAX for token, bias in biases.items()
    )
