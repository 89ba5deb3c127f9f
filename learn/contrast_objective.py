"""Objective of a search by contrast: candidates are scored on rollouts, which may be sampled afresh."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.candidate_lora import CandidateLora
from ..errors import RequestError, ThirteenError
from ..files.hashing import file_sha256
from ..models.rows import TrainingRow
from ..runtime.engine.engine import Engine
from ..runtime.engine.majority_vote import check_votes
from ..runtime.request import Sampling
from .cma_search import Numbers
from .contrast import Contrast, ContrastSettings, Floats, flatten, make_contrast
from .objective import AnswerSettings, EngineObjective
from .rollouts import COMMON, QuestionRollouts, RolloutFile, Rollouts, read_identity
from .sample_rollouts import judge_solution

_BLOCK = 8  # questions whose fresh rollouts are sampled together


@dataclass(frozen=True)
class ContrastOptions:
    """What a search by contrast is given.

    Attributes:
        rollouts: rollouts of the base.
        settings: how a contrast is scored.
        rollouts_every: generations after which solutions are sampled afresh, from the mean of the search; 0
            keeps those of the base.
    """

    rollouts: Rollouts
    settings: ContrastSettings = field(default_factory=ContrastSettings)
    rollouts_every: int = 0

    def __post_init__(self) -> None:
        if "numbers" in self.rollouts.identity:
            raise RequestError(f"{self.rollouts.path}: rollouts of a search's mean, not of the base")
        if self.rollouts_every < 0:
            raise ThirteenError(f"--rollouts-every {self.rollouts_every}: must be at least 0")
        if self.rollouts_every:
            self.samplings()  # a first line without it fails before the search

    def samplings(self) -> list[Sampling]:
        """Sampling parameters of the solutions to a question.

        Raises:
            RequestError: the first line of the rollouts lacks their number.
        """
        samples: Any = self.rollouts.identity.get("votes")
        try:
            check_votes(samples)
        except RequestError as error:
            raise RequestError(f"{self.rollouts.path}: line 1: {error}") from None
        return self.rollouts.sampling.with_seeds(samples)

    @property
    def identity(self) -> dict[str, object]:
        """All that the scores depend on, as JSON values."""
        return {
            "rollouts": file_sha256(self.rollouts.path),
            "sampling": asdict(self.rollouts.sampling),
            **asdict(self.settings),
            "rollouts_every": self.rollouts_every,
        }

    @property
    def rows(self) -> list[TrainingRow]:
        """The questions that are sometimes right."""
        return [
            TrainingRow(one.question, "", one.answer)
            for one in self.rollouts.questions
            if one.sometimes_right
        ]


def check_rollouts_given(score: str, *, given: bool) -> None:
    """Raise ThirteenError unless rollouts are given for the score `contrast`, and only for it."""
    if (score == "contrast") != given:
        raise ThirteenError("tune: --score contrast and --rollouts FILE require each other")


def rollout_settings(model: Path, answers: AnswerSettings) -> dict[str, object]:
    """What a search must have in common with its rollouts; see read_rollouts(). Hashes the model."""
    return {
        "model_sha256": file_sha256(model),
        "adapter_sha256": None,  # the base's probabilities are the old ones
        "system": answers.system,
        "calculator": answers.calculator,
        "max_tokens": answers.max_tokens,
    }


class ContrastObjective(EngineObjective):
    """The objective `contrast`, computed by an engine that runs the model to be shipped."""

    def __init__(
        self,
        engine: Engine,
        lora: CandidateLora,
        settings: AnswerSettings,
        options: ContrastOptions,
        folder: Path,
    ) -> None:
        """Find what to score of each question.

        Args:
            engine: see EngineObjective, also for `lora` and `settings`.
            lora: the LoRA file of the candidates.
            settings: how questions are asked.
            options: rollouts, and how they are scored.
            folder: where fresh rollouts are kept, for a run that resumes.

        Raises:
            RequestError: the rollouts are of another prompt, or longer than the engine's context.
        """
        super().__init__(engine, lora, settings)
        self._options, self._folder = options, folder
        self._sampled_at = 0  # the generation before which rollouts were last sampled afresh
        self._contrasts: dict[str, Contrast] = {}
        self._sampled_by: Numbers = np.zeros(1)  # all zeros are the base
        self._base: dict[str, Floats] = {}
        self._old = self._base
        self._use(options.rollouts.questions, options.rollouts.path, self._sampled_by)

    def scores(
        self, candidates: Sequence[Numbers], rows: Sequence[TrainingRow], mean: Numbers
    ) -> list[float]:
        """Mean scores over the questions; those whose rollouts have one outcome only are left out."""
        questions = [row.question for row in rows if row.question in self._contrasts]
        contrasts = [self._contrasts[question] for question in questions]
        old = self._cached(self._old, self._sampled_by, questions)
        base = self._cached(self._base, np.zeros_like(self._sampled_by), questions)
        settings = self._options.settings

        def mean_score(numbers: Numbers) -> float:
            found = zip(contrasts, self._next_logprobs(numbers, contrasts), old, base, strict=True)
            scores = [one.score(logprobs, before, first, settings) for one, logprobs, before, first in found]
            return sum(scores) / max(len(scores), 1)

        return [mean_score(numbers) for numbers in candidates]

    def prepare(self, generation: int, mean: Numbers) -> None:
        """Sample rollouts afresh from the mean of the search, if it is time; `generation` is the next one.

        A resumed run goes back to the newest rollouts with a contrast: an uninterrupted one has kept these.

        Raises:
            RequestError: rollouts that the interrupted run has sampled are missing or damaged.
        """
        every = self._options.rollouts_every
        if not every:
            return
        newest = generation - generation % every
        for at in range(newest, self._sampled_at, -every):
            path = self._folder / f"rollouts-{at}.jsonl"
            mean_then = mean if at == generation else _read_numbers(path, len(mean))
            if self._use(self._sample(path, mean_then), path, mean_then):
                break
        self._sampled_at = newest

    def _use(self, rollouts: Iterable[QuestionRollouts], path: Path, sampled_by: Numbers) -> bool:
        """Score by these rollouts of `path` from now on; False if none of their questions has a contrast."""
        contrasts = {
            one.question: contrast
            for one in rollouts
            if one.sometimes_right and (contrast := self._contrast(one, path))
        }
        if contrasts:
            self._contrasts, self._sampled_by, self._base = contrasts, sampled_by, {}
            self._old = {} if sampled_by.any() else self._base
        return bool(contrasts)

    def _contrast(self, rollouts: QuestionRollouts, path: Path) -> Contrast | None:
        prompt = self.request(TrainingRow(rollouts.question, "", rollouts.answer)).tokens
        where = f"{path}: question {rollouts.number}"
        if len(prompt) != rollouts.prompt_tokens:
            raise RequestError(
                f"{where}: rollouts with another prompt: it has {rollouts.prompt_tokens} tokens in the file, "
                f"{len(prompt)} now"
            )
        limit = self._options.settings.branch_tokens
        contrast = make_contrast(prompt, rollouts, self._end_token, self._sampled_mask, limit)
        if contrast and contrast.longest > self.engine.context:
            raise RequestError(
                f"{where}: {contrast.longest} tokens to its last branch do not fit the context of "
                f"{self.engine.context}: --context {contrast.longest} or fewer --branch-tokens"
            )
        return contrast

    def _cached(self, cache: dict[str, Floats], numbers: Numbers, questions: Sequence[str]) -> list[Floats]:
        """Log-probabilities that stay the same until rollouts are sampled afresh."""
        missing = [question for question in dict.fromkeys(questions) if question not in cache]
        contrasts = [self._contrasts[question] for question in missing]
        cache.update(zip(missing, self._next_logprobs(numbers, contrasts), strict=True))
        return [cache[question] for question in questions]

    def _next_logprobs(self, numbers: Numbers, contrasts: Sequence[Contrast]) -> list[Floats]:
        if not contrasts:
            return []
        adapter = self._load(numbers)
        self.cost.tokens += sum(contrast.tokens for contrast in contrasts)
        with self._model_time():
            scored = self.engine.next_logprobs(
                [contrast.branches for contrast in contrasts], adapter, self._options.rollouts.sampling
            )
        return [flatten(logprobs) for logprobs in scored]

    def _sample(self, path: Path, mean: Numbers) -> list[QuestionRollouts]:
        """Sample solutions to the questions that the base sometimes solves; resumes from the file."""
        rows, first = self._options.rows, self._options.rollouts.identity
        same = (*COMMON, "votes", *(one.name for one in fields(Sampling)))  # threads and slots may differ
        identity = {key: first[key] for key in same if key in first}
        identity |= {"questions": len(rows), "numbers": mean.tolist()}
        with RolloutFile(path, identity) as file:
            numbered = enumerate(rows)
            while block := dict(islice(numbered, _BLOCK)):
                if not file.questions.keys() >= block.keys():  # an interrupted block runs again as a whole
                    for rollouts in self._sample_block(mean, block):
                        if rollouts.number not in file.questions:
                            file.add(rollouts)
            return [file.questions[number] for number in range(len(rows))]

    def _sample_block(self, mean: Numbers, rows: Mapping[int, TrainingRow]) -> Iterator[QuestionRollouts]:
        adapter, samples = self._load(mean), self._options.samplings()
        requests = [
            replace(self.request(row), adapter=adapter, sampling=one)
            for row in rows.values()
            for one in samples
        ]
        outputs = iter(self._generate(requests))
        for number, row in rows.items():
            found = list(islice(outputs, len(samples)))
            solutions = tuple(judge_solution(tokens, answer, row) for tokens, answer in found)
            prompt_tokens = found[0][1].usage.prompt_tokens
            yield QuestionRollouts(number, row.question, row.answer, prompt_tokens, solutions)


def _read_numbers(path: Path, size: int) -> Numbers:
    """The numbers that sampled the fresh rollouts in a file.

    Raises:
        RequestError: the file is missing or no file of rollouts, or has not as many numbers.
    """
    if not path.exists():
        raise RequestError(f"{path}: missing: the run cannot resume without the rollouts that it sampled")
    try:
        numbers = np.array(read_identity(path).get("numbers"), float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (size,):
        raise RequestError(f"{path}: line 1: not the {size} numbers that sampled these rollouts")
    return numbers
