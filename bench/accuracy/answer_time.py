"""Seconds of an answer to a user who asks one question and waits, of base and adapted model."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ...files.progress import Progress
from ...runtime.batch.reproducible_batches import BatchSettings, prefill_shared_prefix
from ...runtime.engine.engine import Engine
from ...stats.arrays import Doubles
from ...stats.bootstrap import ratio_interval
from ...stats.interval import Interval
from ..interleave import ITERATIONS_PER_ROUND, EngineLoader, count_iterations, interleave
from ..schedule import ProgressCounter

TIMED = 16  # questions by default


@dataclass(frozen=True, slots=True)
class AnswerSeconds:
    """Seconds of questions that were asked one at a time.

    Attributes:
        timed: their number.
        means: mean seconds of each model; the base comes first.
        ratio: adapted/base, with its bootstrap interval over the questions; None of a single model.
    """

    timed: int
    means: tuple[float, ...]
    ratio: Interval | None


def time_questions(
    loaders: Sequence[EngineLoader], questions: Sequence[str], settings: BatchSettings, progress: Progress
) -> AnswerSeconds:
    """Ask each model each question, one at a time, in alternation; see interleave().

    The prefix cache has only what all prompts share, as after an engine's first question.

    Args:
        loaders: load the models.
        questions: the questions, at least one.
        settings: prompt and generation settings.
        progress: called with iterations done and in all.

    Raises:
        RequestError: a question does not fit a model's context.
    """

    def answer_s(engine: Engine, iteration: int) -> float:
        request = settings.request(engine, questions[iteration % len(questions)])
        engine.clear_prefix_cache(keep=prefill_shared_prefix(engine, settings))
        start = perf_counter()
        engine.submit(request, wait=True).wait()
        return perf_counter() - start

    rounds = -(-len(questions) // ITERATIONS_PER_ROUND)
    advance = ProgressCounter(progress, count_iterations(len(loaders), rounds))
    asked: Doubles = np.array(interleave(loaders, answer_s, rounds, advance))  # (models, iterations)
    seconds = asked[:, : len(questions)]
    ratio = ratio_interval(seconds[::-1].T) if len(loaders) == 2 else None
    return AnswerSeconds(len(questions), tuple(seconds.mean(axis=1).tolist()), ratio)
