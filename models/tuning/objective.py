"""How good an adapter of some numbers is: what the quantized model answers with it, or holds likely."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...convert.adapter.candidate_lora import CandidateLora
from ...errors import ThirteenError
from ...runtime.answer import Answer
from ...runtime.arithmetic.final_answer import format_number, parse_number
from ...runtime.engine.engine import Engine
from ...runtime.engine.handle import Handle
from ...runtime.engine.output_stream import sampled_mask
from ...runtime.request import BASE, Request, Sampling, StopReason
from ..rows import TrainingRow
from .cma_search import Numbers

T = TypeVar("T")
SCORES = ("reference", "own", "answer", "exact")
_CUE = "\nThe answer is"
_FLOOR = -8.0  # nats: how unlikely a right answer can count as, so that one question does not outweigh all
_UNFINISHED = 1.0  # nats that an answer costs that did not end in time
_CLIP = 0.2  # how far a ratio can count, as in PPO
_NAME = "candidate"
OWN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)  # by the model's probabilities, all of them
Pair = tuple[Sequence[int], Sequence[int]]  # tokens before, and of a continuation


class Objective(Protocol):
    """What tells good numbers from worse ones."""

    def scores(
        self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow], mean: Numbers
    ) -> list[float]:
        """The score of each candidate around `mean` on the same rows; higher is better."""

    def right(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """Whether each row is answered rightly."""

    @property
    def spent(self) -> "Cost":
        """What all that took."""


@dataclass
class Cost:
    """What judging took: seconds of the model and of putting adapters in place, tokens in and out."""

    model_s: float = 0.0
    swap_s: float = 0.0
    tokens: int = 0
    swaps: int = 0


@dataclass(frozen=True)
class AnswerSettings:
    """How questions are put.

    Attributes:
        score: what is scored. `reference`: how likely a token of the solution is, results of sums that the
            calculator puts in left out. `own`: how much likelier become the right ones of the answers that
            the candidates' mean gave, and how much less so the wrong ones. `answer`: how likely the right
            answer is after the model's own words. `exact`: the part that is right.
        system: what the model is told beforehand, None for what its template says.
        max_tokens: the longest answer.
        calculator: whether sums in answers are completed.
    """

    score: str = "reference"
    system: str | None = None
    max_tokens: int = 64
    calculator: bool = True

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ThirteenError(f"--score {self.score!r}: there are {', '.join(SCORES)}")


class EngineObjective:
    """Judges by an engine that runs the model which will be shipped."""

    def __init__(self, engine: Engine, file: CandidateLora, asking: AnswerSettings) -> None:
        """Take an engine that keeps no beginnings of prompts, and the file that its adapter comes from."""
        self._engine, self._file, self._asking = engine, file, asking
        self._spent = Cost()

    @property
    def spent(self) -> Cost:
        """See Judge."""
        return self._spent

    def scores(
        self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow], mean: Numbers
    ) -> list[float]:
        """See Judge."""
        requests = [self._request(row) for row in rows]
        if self._asking.score == "own":
            samples = self._samples(mean, requests, rows)
            return [self._own(self._place(numbers), samples) for numbers in candidates]
        score = {"reference": self._reference, "answer": self._answer, "exact": self._exact}[
            self._asking.score
        ]
        return [score(self._place(numbers), requests, rows) for numbers in candidates]

    def right(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """See Judge."""
        return self._right(self._place(numbers), [self._request(row) for row in rows], rows)

    def log_likelihoods(self, numbers: Numbers, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """The log-probabilities of continuations' tokens, as Engine.log_likelihoods()."""
        return self._read(self._place(numbers), pairs)

    def _place(self, numbers: Numbers) -> str:
        """Have the engine load the adapter of some numbers; the base itself where they are all zero."""
        if not numbers.any():
            return BASE
        start = perf_counter()
        self._file.write(numbers.astype(np.float32))
        self._engine.swap(_NAME, self._file.path)
        self._spent.swap_s += perf_counter() - start
        self._spent.swaps += 1
        return _NAME

    def _timed(self, compute: Callable[[], T]) -> T:
        start = perf_counter()
        done = compute()
        self._spent.model_s += perf_counter() - start
        return done

    def _request(self, row: TrainingRow) -> Request:
        asking = self._asking
        return self._engine.request(
            row.question, system=asking.system, max_tokens=asking.max_tokens, calculator=asking.calculator
        )

    def _answers(self, adapter: str, requests: Sequence[Request]) -> list[Answer]:
        def compute() -> list[Answer]:
            chosen = [replace(request, adapter=adapter) for request in requests]
            return [handle.answer() for handle in self._engine.submit_all(chosen, wait=True)]

        answers = self._timed(compute)
        self._spent.tokens += sum(a.usage.prompt_tokens + a.usage.completion_tokens for a in answers)
        return answers

    def _samples(self, mean: Numbers, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> "_Samples":
        """An answer to each question, drawn by the probabilities that the model has with `mean`."""
        adapter = self._place(mean)
        drawn = [
            replace(request, adapter=adapter, sampling=replace(OWN, seed=seed))
            for seed, request in enumerate(requests)
        ]

        def compute() -> list[tuple[tuple[int, ...], Answer]]:
            return [_whole(handle) for handle in self._engine.submit_all(drawn, wait=True)]

        pairs, right = [], []
        for request, row, (tokens, answer) in zip(requests, rows, self._timed(compute), strict=True):
            self._spent.tokens += answer.usage.prompt_tokens + answer.usage.completion_tokens
            end = [self._engine.model.eos] if answer.stop_reason is StopReason.END else []
            after = [*tokens, *(token for token in end if token is not None)]
            if after:
                pairs.append((request.tokens, after))
                right.append(is_right(answer, row))
        chosen = [self._chosen(after) for _, after in pairs]
        before = [np.array(one)[of] for one, of in zip(self._read(adapter, pairs), chosen, strict=True)]
        return _Samples(pairs, chosen, before, _advantages(right))

    def _own(self, adapter: str, samples: "_Samples") -> float:
        """GRPO's clipped objective (arXiv 2402.03300), its ratio a mean over tokens (GSPO, 2507.18071)."""
        found = self._read(adapter, samples.pairs)
        moved = [
            float(np.mean(np.array(one)[of] - before))
            for one, of, before in zip(found, samples.chosen, samples.before, strict=True)
        ]
        ratio = np.exp(moved)
        clipped = np.clip(ratio, 1 - _CLIP, 1 + _CLIP)
        return float(np.minimum(ratio * samples.advantages, clipped * samples.advantages).mean())

    def _chosen(self, tokens: Sequence[int]) -> list[bool]:
        """Which tokens the model has to choose."""
        return sampled_mask(self._engine.model, tokens) if self._asking.calculator else [True] * len(tokens)

    def _exact(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        return float(np.mean(self._right(adapter, requests, rows)))

    def _right(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> list[bool]:
        answers = self._answers(adapter, requests)
        return [is_right(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def _reference(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        end = [token for token in (self._engine.model.eos,) if token is not None]
        after = [[*self._tokens(row.solution), *end] for row in rows]
        found = self._read(
            adapter, [(asked.tokens, told) for asked, told in zip(requests, after, strict=True)]
        )
        own = [self._chosen(tokens) for tokens in after]
        return float(np.mean([np.mean(np.array(one)[of]) for one, of in zip(found, own, strict=True)]))

    def _answer(self, adapter: str, requests: Sequence[Request], rows: Sequence[TrainingRow]) -> float:
        answers = self._answers(adapter, requests)
        pairs = [
            ((*request.tokens, *self._tokens(answer.text + _CUE)), self._tokens(f" {row.answer}"))
            for request, answer, row in zip(requests, answers, rows, strict=True)
        ]
        found = self._read(adapter, pairs)
        late = np.mean([answer.stop_reason is StopReason.LENGTH for answer in answers])
        return float(np.mean([max(sum(one), _FLOOR) for one in found]) - _UNFINISHED * late)

    def _read(self, adapter: str, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        self._spent.tokens += sum(len(before) + len(after) for before, after in pairs)
        return self._timed(lambda: self._engine.log_likelihoods(pairs, adapter))

    def _tokens(self, text: str) -> list[int]:
        return self._engine.model.tokenize(text, special=False, bos=False)


@dataclass(frozen=True)
class _Samples:
    """Answers, which of their tokens the model chose, how likely these were, and what each is worth."""

    pairs: Sequence[Pair]
    chosen: Sequence[Sequence[bool]]
    before: Sequence[NDArray[np.float64]]
    advantages: NDArray[np.float64]


def _advantages(right: Sequence[bool]) -> NDArray[np.float64]:
    """What each answer is worth beside the mean; where all are right, or all wrong, as much as that."""
    rewards = np.array(right, float)
    spread = rewards.std()
    return (rewards - rewards.mean()) / spread if spread else 2 * rewards - 1


def _whole(handle: Handle) -> tuple[tuple[int, ...], Answer]:
    """The tokens of an answer, and itself."""
    pieces = list(handle)
    answer = pieces[-1].answer
    assert answer is not None, "the last piece carries the answer"
    return tuple(token for piece in pieces for token in piece.tokens), answer


def is_right(answer: Answer, row: TrainingRow) -> bool:
    """Whether an answer ended in time and is the row's."""
    wanted = parse_number(row.answer)
    done = answer.stop_reason is not StopReason.LENGTH
    return done and wanted is not None and answer.value == format_number(wanted)
