"""Objective of a search: scores of candidate adapters by the quantized model's answers or log-likelihoods."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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

SCORES = ("reference", "own", "answer", "exact", "contrast")
_CUE = "\nThe answer is"
_LOG_LIKELIHOOD_MIN = -8.0  # nats, so that a single question cannot dominate
_TRUNCATION_PENALTY = 1.0  # nats, for an answer that reached the token limit
_RATIO_CLIP = 0.2  # as in PPO
_ADAPTER_NAME = "candidate"
Pair = tuple[Sequence[int], Sequence[int]]  # tokens of a prompt, and of its continuation


class Objective(Protocol):
    """What a search maximizes."""

    def scores(
        self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow], mean: Numbers
    ) -> list[float]:
        """The score of each candidate on the same rows; higher is better. `mean` is that of the search."""

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
    """How questions are asked and scored.

    Attributes:
        score: the score to maximize. `reference`: mean log-likelihood of the solution's tokens, except those
            that the calculator inserts. `own`: GRPO's objective on answers sampled at the search's mean.
            `answer`: log-likelihood of the right answer after the model's own output. `exact`: fraction of
            right answers. `contrast`: likelihood of right against wrong rollouts; see contrast.py.
        system: system prompt; None for the chat template's default.
        max_tokens: maximum tokens per answer.
        calculator: whether the calculator completes equations in answers.
    """

    score: str = "reference"
    system: str | None = None
    max_tokens: int = 64
    calculator: bool = True

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ThirteenError(f"--score {self.score!r}: must be one of {', '.join(SCORES)}")


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

    def scores(
        self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow], mean: Numbers
    ) -> list[float]:
        requests = [self.request(row) for row in rows]
        if self._settings.score == "own":
            samples = self._sample_answers(mean, requests, rows)
            return [self._clipped_objective(self._load(numbers), samples) for numbers in candidates]
        functions = {"reference": self._reference, "answer": self._answer, "exact": self._exact}
        score = functions[self._settings.score]
        return [score(self._load(numbers), requests, rows) for numbers in candidates]

    def correct(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        return self._correct(self._load(numbers), [self.request(row) for row in rows], rows)

    def check_lengths(self, rows: Sequence[TrainingRow]) -> None:
        """Raise RequestError unless the prompt of each row fits, with the solution or answer if scored."""
        context = self.engine.context
        for row in rows:
            tokens = len(self.request(row).tokens) + 1  # an answer has at least one
            if self._settings.score == "reference" and row.solution:
                tokens += len(self._tokenize(row.solution))
            elif self._settings.score == "answer":
                tokens += len(self._tokenize(f" {row.answer}")) - 1
            if tokens > context:
                raise RequestError(
                    f"question {shorten(row.question)}: {tokens} tokens do not fit the context of {context}: "
                    f"--context {tokens}"
                )

    def prepare(self, generation: int, mean: Numbers) -> None:
        """Prepare the next generation of a search, of which `mean` is the mean; does nothing here."""

    def log_likelihoods(self, numbers: Numbers, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Engine.log_likelihoods() with the adapter of `numbers`."""
        return self._log_likelihoods(self._load(numbers), pairs)

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

    def request(self, row: TrainingRow) -> Request:
        """The request that asks a row's question, greedily."""
        settings = self._settings
        return self.engine.request(
            row.question,
            system=settings.system,
            max_tokens=settings.max_tokens,
            calculator=settings.calculator,
        )

    def _generate(self, requests: Sequence[Request]) -> list[tuple[list[int], Answer]]:
        """Run requests; the output tokens and the answer of each."""
        with self._model_time():
            outputs = [collect_output(handle) for handle in self.engine.submit_all(requests, wait=True)]
        usages = [answer.usage for _, answer in outputs]
        self.cost.tokens += sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)
        return outputs

    def _answers(self, adapter: str, requests: Sequence[Request]) -> list[Answer]:
        outputs = self._generate([replace(request, adapter=adapter) for request in requests])
        return [answer for _, answer in outputs]

    def _log_likelihoods(self, adapter: str, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        self.cost.tokens += sum(len(prompt) + len(continuation) for prompt, continuation in pairs)
        with self._model_time():
            return self.engine.log_likelihoods(pairs, adapter)

    def _sample_answers(
        self, mean: Numbers, requests: Sequence[Request], rows: Sequence[TrainingRow]
    ) -> "_SampledAnswers":
        """Sample one answer to each question from the model's distribution at `mean`."""
        adapter = self._load(mean)
        sampled = [
            replace(request, adapter=adapter, sampling=replace(FULL_DISTRIBUTION, seed=seed))
            for seed, request in enumerate(requests)
        ]
        pairs, correct = [], []
        for request, row, (tokens, answer) in zip(requests, rows, self._generate(sampled), strict=True):
            end = self._end_token if answer.stop_reason is StopReason.END else []
            if tokens or end:
                pairs.append((request.tokens, [*tokens, *end]))
                correct.append(is_correct(answer, row))
        masks = [self._sampled_mask(tokens) for _, tokens in pairs]
        logprobs = self._log_likelihoods(adapter, pairs)
        before = [np.array(values)[mask] for values, mask in zip(logprobs, masks, strict=True)]
        return _SampledAnswers(pairs, masks, before, _advantages(correct))

    def _clipped_objective(self, adapter: str, samples: "_SampledAnswers") -> float:
        """GRPO's clipped objective (arXiv 2402.03300), with the mean ratio over tokens (GSPO, 2507.18071)."""
        logprobs = self._log_likelihoods(adapter, samples.pairs)
        changes = [
            float(np.mean(np.array(token_logprobs)[mask] - before))
            for token_logprobs, mask, before in zip(logprobs, samples.masks, samples.logprobs, strict=True)
        ]
        ratio = np.exp(changes)
        clipped = np.clip(ratio, 1 - _RATIO_CLIP, 1 + _RATIO_CLIP)
        return float(np.minimum(ratio * samples.advantages, clipped * samples.advantages).mean())

    def _reference(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        solutions = [[*self._tokenize(row.solution), *self._end_token] for row in rows]
        pairs = [(request.tokens, tokens) for request, tokens in zip(requests, solutions, strict=True)]
        means = [
            np.mean(np.array(token_logprobs)[self._sampled_mask(tokens)])
            for token_logprobs, tokens in zip(self._log_likelihoods(adapter, pairs), solutions, strict=True)
        ]
        return float(np.mean(means))

    def _answer(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        answers = self._answers(adapter, requests)
        pairs = [
            self._answer_pair(request, answer, row)
            for request, answer, row in zip(requests, answers, rows, strict=True)
        ]
        logprobs = self._log_likelihoods(adapter, pairs)
        truncated = np.mean([answer.stop_reason is StopReason.LENGTH for answer in answers])
        likelihood = np.mean([max(sum(token_logprobs), _LOG_LIKELIHOOD_MIN) for token_logprobs in logprobs])
        return float(likelihood - _TRUNCATION_PENALTY * truncated)

    def _answer_pair(self, request: Request, answer: Answer, row: TrainingRow) -> Pair:
        """The prompt with the model's own words and a cue, and the right answer; what does not fit is cut."""
        right = self._tokenize(f" {row.answer}")
        words, cue = self._tokenize(answer.text + _CUE), self._tokenize(_CUE)
        room = max(self.engine.context - len(request.tokens) - len(right), 0)
        if len(words) > room:
            words = [*words[: max(room - len(cue), 0)], *cue][:room]
        return (*request.tokens, *words), right

    def _exact(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        return float(np.mean(self._correct(adapter, requests, rows)))

    def _correct(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> list[bool]:
        answers = self._answers(adapter, requests)
        return [is_correct(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def _sampled_mask(self, tokens: Sequence[int]) -> list[bool]:
        """Which tokens the model samples; the calculator inserts the others."""
        return sampled_mask(self.engine.model, tokens) if self._settings.calculator else [True] * len(tokens)

    def _tokenize(self, text: str) -> list[int]:
        return self.engine.model.tokenize(text, special=False, bos=False)

    @property
    def _end_token(self) -> list[int]:
        eos = self.engine.model.eos
        return [] if eos is None else [eos]


@dataclass(frozen=True)
class _SampledAnswers:
    """Sampled answers: token pairs, masks of sampled tokens, the log-probabilities of these, advantages."""

    pairs: Sequence[Pair]
    masks: Sequence[Sequence[bool]]
    logprobs: Sequence[NDArray[np.float64]]
    advantages: NDArray[np.float64]


def _advantages(correct: Sequence[bool]) -> NDArray[np.float64]:
    """GRPO's advantages of 0/1 rewards; all 1 if every answer is right, all -1 if every answer is wrong."""
    rewards = np.array(correct, float)
    spread = rewards.std()
    return (rewards - rewards.mean()) / spread if spread else 2 * rewards - 1


def collect_output(handle: Handle) -> tuple[list[int], Answer]:
    """Wait for a request; its output tokens and its answer."""
    tokens = [token for piece in handle for token in piece.tokens]
    return tokens, handle.answer()


def is_correct(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer ended before the token limit, with the row's final answer."""
    expected = parse_number(row.answer)
    ended = answer.stop_reason is not StopReason.LENGTH
    return ended and expected is not None and answer.value == format_number(expected)
