"""Time to a right answer: tokens and seconds a question, right answers a minute, and their ratios.

Right answers a minute are 60 times the accuracy over the mean seconds a question. These seconds are those of
a user who asks one question and waits: the mean seconds to the first token, and the mean tokens of all
answers times the seconds of decoding a token. The seconds are measured on a sample of the questions, asked
one at a time; see time_answers(). Accuracy and tokens are those of all questions, because their spread is
much larger than that of the seconds a token.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import perf_counter

import numpy as np

from ...files.progress import Progress
from ...quality.schedule import ProgressCounter
from ...runtime.batch.reproducible_batches import GenerationSettings, prefill_shared_prefix
from ...runtime.engine.engine import Engine
from ...stats.arrays import Doubles
from ...stats.bootstrap import joint_interval
from ...stats.interval import Interval
from ..harness.interleave import ITERATIONS_PER_ROUND, EngineLoader, count_iterations, interleave

TIMED = 16  # questions by default
_TASKS = 2  # questions of each iteration
_RIGHT_MIN = 0.5  # right answers of a resample without any, as a ratio to none would be infinite
_TOKENS, _PREFILL, _DECODE, _RIGHT = range(4)  # indices of the fields of AnswerTime


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """One question that was asked alone.

    Attributes:
        prefill_s: seconds from submission to the first token.
        decode_s: seconds from there to the end of the answer, or of the vote.
        tokens: tokens of all answers; those of a vote are counted in the batches of the run.
    """

    prefill_s: float
    decode_s: float
    tokens: int


def time_answers(
    loaders: Sequence[EngineLoader],
    questions: Sequence[str],
    settings: GenerationSettings,
    progress: Progress,
) -> tuple[tuple[TimedAnswer, ...], ...]:
    """Ask each model each question, one at a time, in alternation; see interleave().

    The prefix cache has only what all prompts share, as after an engine's first question.

    Args:
        loaders: load the models.
        questions: the questions, at least one.
        settings: prompt and generation settings.
        progress: called with iterations done and in all.

    Returns:
        The times of each model, in the order of the questions.

    Raises:
        RequestError: a question does not fit a model's context.
        ThirteenError: a loader raises it.
    """
    per_round = ITERATIONS_PER_ROUND * _TASKS
    rounds = -(-len(questions) // per_round)
    advance = ProgressCounter(progress, count_iterations(len(loaders), _TASKS, rounds))

    def ask(task: int, engine: Engine, iteration: int) -> TimedAnswer:
        question = questions[(_TASKS * iteration + task) % len(questions)]
        return _time_answer(engine, question, settings)

    tasks = interleave(loaders, [partial(ask, task) for task in range(_TASKS)], rounds, advance)
    return tuple(
        tuple(chain.from_iterable(zip(*by_task, strict=True)))[: len(questions)]
        for by_task in zip(*tasks, strict=True)
    )


def _time_answer(engine: Engine, question: str, settings: GenerationSettings) -> TimedAnswer:
    engine.clear_prefix_cache(keep=prefill_shared_prefix(engine, settings))
    request = settings.request(engine, question)
    start = perf_counter()
    end = engine.submit(request, wait=True).wait()
    prefill_s, total_s = end.timings.first_token_s, perf_counter() - start
    return TimedAnswer(prefill_s, total_s - prefill_s, end.usage.completion_tokens)


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question that a model answered: whether rightly, and the tokens of all samples."""

    right: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class AnswerTime:
    """Time to the answers of one model.

    Attributes:
        tokens: mean tokens a question, of all samples.
        prefill_s: mean seconds to the first token.
        decode_s: mean seconds from there to the last token.
        right_per_minute: right answers a minute.
    """

    tokens: float
    prefill_s: float
    decode_s: float
    right_per_minute: float

    @property
    def seconds(self) -> float:
        """Mean seconds a question."""
        return self.prefill_s + self.decode_s


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Time to the answers of base and adapted model.

    The ratios are adapted/base with bootstrap intervals over the questions, paired, and over the timed ones.

    Attributes:
        timed: number of questions that were asked one at a time.
        questions: number of questions that both models answered.
        adapted: times of the model.
        base: times of the model that it is compared with; None without one. So are the ratios.
        tokens_ratio: ratio of the tokens a question.
        seconds_ratio: ratio of the seconds a question.
        right_ratio: ratio of the right answers a minute; None also if either model has none right.
    """

    timed: int
    questions: int
    adapted: AnswerTime
    base: AnswerTime | None = None
    tokens_ratio: Interval | None = None
    seconds_ratio: Interval | None = None
    right_ratio: Interval | None = None


def summarize_times(
    times: Sequence[Sequence[TimedAnswer]], answered: Sequence[Sequence[AnsweredQuestion]]
) -> AnswerTimes:
    """Summarize the times of one model, or of base and adapted model.

    Args:
        times: for each model, the times of some of the questions.
        answered: for each model, in the same order, all questions that each of them answered.
    """
    counts = _by_question([[(one.right, one.tokens, 1) for one in model] for model in answered])
    seconds = _by_question(
        [[(one.prefill_s, one.decode_s, one.tokens, 1) for one in model] for model in times]
    )
    figures = _figures(counts.sum(0)[None], seconds.sum(0)[None])[:, 0]  # (4, models)
    *base, adapted = (AnswerTime(*model) for model in figures.T.tolist())
    some_right = all(any(one.right for one in model) for model in answered)

    def ratio(*rows: int) -> Interval | None:
        def figure(of_all: Doubles, of_timed: Doubles) -> Doubles:
            base, adapted = _figures(of_all, of_timed, _RIGHT_MIN)[[*rows]].sum(0).T  # (n,) each
            return np.asarray(adapted / base)

        return joint_interval((counts, seconds), figure) if base else None

    return AnswerTimes(
        timed=len(seconds),
        questions=len(counts),
        adapted=adapted,
        base=base[0] if base else None,
        tokens_ratio=ratio(_TOKENS),
        seconds_ratio=ratio(_PREFILL, _DECODE),
        right_ratio=ratio(_RIGHT) if some_right else None,
    )


def _by_question(models: Sequence[Sequence[tuple[float, ...]]]) -> Doubles:
    """The numbers of each question and model, (questions, models, numbers)."""
    return np.array(models, np.float64).swapaxes(0, 1)


def _figures(counts: Doubles, seconds: Doubles, right_min: float = 0.0) -> Doubles:
    """The figures of AnswerTime, (4, n, models).

    Their sources are sums over the questions of right answers, tokens and 1, (n, models, 3), and over the
    timed ones of the seconds of prefill and decode, tokens and 1, (n, models, 4). Fewer right answers than
    `right_min` count as that many.
    """
    right, tokens, questions = np.moveaxis(counts, -1, 0)  # (n, models) each
    prefill_s, decode_s, timed_tokens, timed = np.moveaxis(seconds, -1, 0)  # (n, models) each
    tokens_mean, prefill_mean_s = tokens / questions, prefill_s / timed
    decode_mean_s = tokens_mean * decode_s / timed_tokens
    right_per_s = np.maximum(right, right_min) / questions / (prefill_mean_s + decode_mean_s)
    return np.array([tokens_mean, prefill_mean_s, decode_mean_s, 60 * right_per_s])


def describe_times(times: AnswerTimes, accuracy: Interval) -> str:
    """Say in a line what the adapted model is worth to someone who waits.

    Args:
        times: times of base and adapted model.
        accuracy: difference of the accuracies, as a fraction.
    """
    points = f"accuracy {100 * accuracy.estimate:+.1f} points "
    points += f"({100 * accuracy.low:+.1f} to {100 * accuracy.high:+.1f})"
    if (ratio := times.right_ratio) is None:
        return f"right answers a minute: no ratio, as a model has none right; {points}"
    estimate, low, high = (f"{bound:.3g}" for bound in (ratio.estimate, ratio.low, ratio.high))
    return f"right answers a minute: {estimate} times the base's ({low} to {high}), {points}"


def time_rows(times: AnswerTimes) -> Iterator[tuple[str, ...]]:
    """Rows of a table: a title, the figure of base (if there is one) and adapted model, and the ratio."""
    models = [model for model in (times.base, times.adapted) if model]

    def row(title: str, figures: Sequence[str], ratio: Interval | None = None) -> tuple[str, ...]:
        ratios = [f"{ratio.text(2)} times" if ratio else ""] if times.base else []
        return (title, *figures, *ratios)

    yield row("tokens a question", [f"{one.tokens:.0f}" for one in models], times.tokens_ratio)
    yield row("seconds a question", [f"{one.seconds:.2f}" for one in models], times.seconds_ratio)
    yield row("  prefill", [f"{one.prefill_s:.2f}" for one in models])
    yield row("  decode", [f"{one.decode_s:.2f}" for one in models])
    yield row("right answers a minute", [f"{one.right_per_minute:.2f}" for one in models], times.right_ratio)
