"""Speed of two models at questions of several lengths, with answers of several lengths.

A prompt has random tokens: speed depends on their number, not on what they say.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from ...quality.workload import random_prompt, time_answers
from ...runtime.engine.engine import Engine
from ...runtime.validation import check_integer
from ..harness.interleave import EngineLoader, PairedMeasurement, compare, count_iterations, interleave


@dataclass(frozen=True, slots=True, order=True)
class QuestionShape:
    """Number of tokens of a question, and of its answer."""

    prompt_tokens: int
    answer_tokens: int

    def __post_init__(self) -> None:
        check_integer("bench: prompt_tokens", self.prompt_tokens, 1)
        check_integer("bench: answer_tokens", self.answer_tokens, 2)  # decode begins after the first

    def __str__(self) -> str:
        return f"{self.prompt_tokens} + {self.answer_tokens}"

    @property
    def tokens(self) -> int:
        """Tokens of question and answer."""
        return self.prompt_tokens + self.answer_tokens


# A short question, one with a worked example or a system prompt, and one about a page of text.
QUESTIONS = tuple(QuestionShape(prompt, answer) for prompt in (60, 200, 800) for answer in (64, 256))
# The defaults of llama-bench: a prompt, and an answer from an empty context.
PP512, TG128 = QuestionShape(512, 2), QuestionShape(1, 129)


@dataclass(frozen=True, slots=True)
class QuestionSpeeds:
    """Speeds of base and adapted model at one question and its answer.

    Attributes:
        tokens: length of the question.
        prefill: prompt tokens per second.
        first_token: seconds from submitting the prompt's tokens to the first token.
        decode: tokens per second after that, at a depth of `tokens` and what has been written.
        answer_tokens: length of the answer.
        answer: seconds from submitting the prompt's tokens to the last token of the answer.
    """

    tokens: int
    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    answer_tokens: int
    answer: PairedMeasurement

    @property
    def shape(self) -> QuestionShape:
        """Tokens of question and answer."""
        return QuestionShape(self.tokens, self.answer_tokens)


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """Speed of one model at one question: medians, in the units of QuestionSpeeds."""

    question: QuestionShape
    prefill: float
    first_token_s: float
    decode: float
    answer_s: float


def count_question_iterations(models: int, questions: Sequence[QuestionShape], rounds: int) -> int:
    """Number of iterations that measure_questions() runs, warm-up included."""
    return count_iterations(models, len(_answers_by_prompt(questions)), rounds)


def measure_questions(
    loaders: Sequence[EngineLoader],
    questions: Sequence[QuestionShape],
    rounds: int,
    advance: Callable[[], None],
    until: float = inf,
) -> tuple[QuestionSpeeds, ...]:
    """Measure base and adapted model at each question, in their order; see interleave().

    Of questions of one length only that with the longest answer runs; the other answers are its beginning.
    """
    by_prompt = _answers_by_prompt(questions)
    tasks = [partial(_run_iteration, tokens, answers) for tokens, answers in by_prompt.items()]
    results = interleave(loaders, tasks, rounds, advance, until)
    return tuple(
        speeds
        for (tokens, answers), by_model in zip(by_prompt.items(), results, strict=True)
        for speeds in _speeds(tokens, answers, by_model)
    )


def measure_alone(
    loader: EngineLoader,
    question: QuestionShape,
    rounds: int,
    advance: Callable[[], None] = lambda: None,
    until: float = inf,
) -> ModelSpeed:
    """Measure one model at one question; see interleave()."""
    task = partial(_run_iteration, question.prompt_tokens, (question.answer_tokens,))
    ((times,),) = interleave([loader], [task], rounds, advance, until)
    first_s, answer_s = np.median(np.array(times), axis=0).tolist()
    decode = (question.answer_tokens - 1) / (answer_s - first_s)
    return ModelSpeed(question, question.prompt_tokens / first_s, first_s, decode, answer_s)


def _answers_by_prompt(questions: Sequence[QuestionShape]) -> dict[int, list[int]]:
    """Lengths of the answers by length of the prompt, both sorted."""
    answers: dict[int, list[int]] = {}
    for question in sorted(set(questions)):
        answers.setdefault(question.prompt_tokens, []).append(question.answer_tokens)
    return answers


def _run_iteration(tokens: int, answers: Sequence[int], engine: Engine, number: int) -> tuple[float, ...]:
    """Seconds to the first token, and to the end of each answer."""
    return time_answers(engine, random_prompt(engine.model, number, tokens), (1, *answers))


def _speeds(
    tokens: int, answers: Sequence[int], results: Sequence[Sequence[tuple[float, ...]]]
) -> Iterator[QuestionSpeeds]:
    first_token_s, *answers_s = np.moveaxis(np.array(results), 2, 0)  # (2, iterations) each
    for answer, answer_s in zip(answers, answers_s, strict=True):
        yield QuestionSpeeds(
            tokens=tokens,
            prefill=compare(first_token_s, tokens),
            first_token=compare(first_token_s),
            decode=compare(answer_s - first_token_s, answer - 1),
            answer_tokens=answer,
            answer=compare(answer_s),
        )
