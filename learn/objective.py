"""Objective of a search: scores of candidate adapters by the quantized model, and their first step size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from ..convert.adapter.candidate_lora import CandidateLora
from ..errors import RequestError, ThirteenError, shorten
from ..models.rows import TrainingRow
from ..runtime.answer import Answer
from ..runtime.arithmetic.final_answer import format_number, parse_number
from ..runtime.engine.engine import Engine
from ..runtime.engine.handle import Handle
from ..runtime.engine.output_stream import sampled_mask
from ..runtime.request import BASE, FULL_DISTRIBUTION, Request, StopReason
from .cma_search import Numbers

_ADAPTER_NAME = "candidate"
Pair = tuple[Sequence[int], Sequence[int]]  # tokens of a prompt, and of its continuation

TARGET_KL = 0.1  # nats per token, of the first step
_FIRST_SIGMA = 0.02
_DIRECTIONS = 3
_ROUNDS = 2
_TEXT_TOKENS = 32


class Objective(Protocol):
    """Objective of a search."""

    def scores(self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow]) -> list[float]:
        """The score of each candidate on the same rows; higher is better."""

    def correct(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """Whether each row is answered right with `numbers`."""

    @property
    def cost(self) -> "Cost":
        """Time and tokens used so far."""


@dataclass
class Cost:
    """Seconds of computation and of adapter swaps, tokens of prompts and outputs, and number of swaps."""

    model_s: float = 0.0
    swap_s: float = 0.0
    tokens: int = 0
    swaps: int = 0


@dataclass(frozen=True)
class AnswerSettings:
    """How questions are asked.

    Attributes:
        system: system prompt; None for the chat template's default.
        max_tokens: maximum tokens per answer.
        calculator: whether the calculator completes equations in answers.
    """

    system: str | None = None
    max_tokens: int = 64
    calculator: bool = True


class EngineObjective:
    """The objective computed by an engine that runs the model to be shipped.

    Attributes:
        engine: the engine.
        cost: time and tokens used so far.
    """

    def __init__(self, engine: Engine, lora: CandidateLora, settings: AnswerSettings) -> None:
        """Take an engine without a prefix cache, and the LoRA file that each candidate is written to."""
        self.engine, self.cost = engine, Cost()
        self._lora, self._settings = lora, settings

    def scores(self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow]) -> list[float]:
        """The mean log-likelihood of the solutions' tokens, except those that the calculator inserts."""
        pairs = [(self.request(row).tokens, self._solution(row)) for row in rows]
        masks = [self._sampled_mask(tokens) for _, tokens in pairs]
        return [self._mean(self.log_likelihoods(numbers, pairs), masks) for numbers in candidates]

    def correct(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        adapter = self._load(numbers)
        requests = [replace(self.request(row), adapter=adapter) for row in rows]
        with self._model_time():
            answers = [handle.answer() for handle in self.engine.submit_all(requests, wait=True)]
        usages = [answer.usage for answer in answers]
        self.cost.tokens += sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
        return [is_correct(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def check_lengths(self, rows: Sequence[TrainingRow]) -> None:
        """Raise RequestError unless the prompt of each row fits, with the solution if it has one."""
        context = self.engine.context
        for row in rows:
            # An answer has at least one token.
            tokens = len(self.request(row).tokens) + 1 + len(self._tokenize(row.solution))
            if tokens > context:
                raise RequestError(
                    f"question {shorten(row.question)}: {tokens} tokens do not fit the context of {context}: "
                    f"--context {tokens}"
                )

    def log_likelihoods(self, numbers: Numbers, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Engine.log_likelihoods() with the adapter of `numbers`."""
        adapter = self._load(numbers)
        self.cost.tokens += sum(len(prompt) + len(continuation) for prompt, continuation in pairs)
        with self._model_time():
            return self.engine.log_likelihoods(pairs, adapter)

    def request(self, row: TrainingRow) -> Request:
        """The request that asks a row's question, greedily."""
        settings = self._settings
        return self.engine.request(
            row.question,
            system=settings.system,
            max_tokens=settings.max_tokens,
            calculator=settings.calculator,
        )

    def _load(self, numbers: Numbers) -> str:
        """Load the adapter of `numbers` into the engine and return its name; all zeros are the base."""
        if not numbers.any():
            return BASE
        start = perf_counter()
        self._lora.write(numbers.astype(np.float32))
        self.engine.swap(_ADAPTER_NAME, self._lora.path, untrusted=False)  # written here
        self.cost.swap_s += perf_counter() - start
        self.cost.swaps += 1
        return _ADAPTER_NAME

    @contextmanager
    def _model_time(self) -> Iterator[None]:
        start = perf_counter()
        yield
        self.cost.model_s += perf_counter() - start

    def _solution(self, row: TrainingRow) -> list[int]:
        eos = self.engine.model.eos
        return [*self._tokenize(row.solution), *([] if eos is None else [eos])]

    def _sampled_mask(self, tokens: Sequence[int]) -> list[bool]:
        """Which tokens the model samples; the calculator inserts the others."""
        return sampled_mask(self.engine.model, tokens) if self._settings.calculator else [True] * len(tokens)

    @staticmethod
    def _mean(logprobs: Sequence[tuple[float, ...]], masks: Sequence[list[bool]]) -> float:
        means = [np.mean(np.array(one)[mask]) for one, mask in zip(logprobs, masks, strict=True)]
        return float(np.mean(means))

    def _tokenize(self, text: str) -> list[int]:
        return self.engine.model.tokenize(text, special=False, bos=False)


def is_correct(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer ended before the token limit, with the row's final answer."""
    expected = parse_number(row.answer)
    ended = answer.stop_reason is not StopReason.LENGTH
    return ended and expected is not None and answer.value == format_number(expected)


def initial_sigma(
    objective: EngineObjective,
    rows: Sequence[TrainingRow],
    *,
    numbers: int,
    seed: int,
    target_kl: float = TARGET_KL,
) -> float:
    """Find the standard deviation of random numbers that moves the model by `target_kl` nats per token.

    The KL divergence from the base is estimated on texts sampled from the base, as the mean drop in their
    log-likelihood per token. It grows with the square of the numbers while they are small.

    Args:
        objective: objective of the search.
        rows: rows whose questions are the prompts of the sampled texts.
        numbers: size of the trained vector.
        seed: seed of the texts and of the directions.
        target_kl: KL divergence to reach.

    Raises:
        ThirteenError: the model computes NaN or infinity, or says nothing to any question.
    """
    pairs = _sample_texts(objective, rows, seed)
    if not pairs:
        raise ThirteenError(f"the model ends its answers to {len(rows)} questions at once: give --sigma")
    tokens = sum(len(text) for _, text in pairs)

    def log_likelihood(candidate: Numbers) -> float:
        return sum(map(sum, objective.log_likelihoods(candidate, pairs)))

    base = log_likelihood(np.zeros(numbers))
    directions = np.random.default_rng(seed).normal(size=(_DIRECTIONS, numbers))
    sigma = _FIRST_SIGMA
    for _ in range(_ROUNDS):
        drops = [base - log_likelihood(sigma * direction) for direction in directions]
        divergence = float(np.mean(drops)) / tokens
        if not np.isfinite(divergence):
            raise ThirteenError(f"the model computes NaN or infinity at steps of size {sigma:.3g}")
        # A very small divergence is mostly noise, so sigma changes at most tenfold per round.
        sigma *= float(np.clip(np.sqrt(target_kl / max(divergence, 1e-9)), 0.1, 10.0))
    return sigma


def _sample_texts(objective: EngineObjective, rows: Sequence[TrainingRow], seed: int) -> list[Pair]:
    """Sample a short text from the base for each question; empty ones are dropped."""
    prompts = [objective.request(row).tokens for row in rows]
    samplings = replace(FULL_DISTRIBUTION, seed=seed).with_seeds(len(prompts))
    requests = [Request(prompt, _TEXT_TOKENS, one) for prompt, one in zip(prompts, samplings, strict=True)]
    texts = [_output_tokens(handle) for handle in objective.engine.submit_all(requests, wait=True)]
    return [(prompt, text) for prompt, text in zip(prompts, texts, strict=True) if text]


def _output_tokens(handle: Handle) -> list[int]:
    return [token for piece in handle for token in piece.tokens]
