"""Times of questions that are asked one at a time, as a user waits for them; both models take turns.

In an accuracy run questions are answered in batches, in which no question has a time of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import perf_counter

from ...files.progress import Progress
from ...quality.schedule import ProgressCounter
from ...runtime.batch.reproducible_batches import GenerationSettings, prefill_shared_prefix
from ...runtime.engine.engine import Engine
from ..harness.interleave import ITERATIONS_PER_ROUND, EngineLoader, count_iterations, interleave

TIMED = 16  # questions by default
_TASKS = 2  # questions of each iteration


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
