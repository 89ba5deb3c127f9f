"""Times of questions that are asked one at a time, as a user waits for them; both models take turns.

In an accuracy run questions are answered in batches, in which no question has a time of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from pydantic import Field

from ...errors import RequestError, shorten
from ...files.journal import Journal
from ...files.progress import Progress
from ...runtime.batch.reproducible_batches import GenerationSettings
from ...runtime.engine.engine import Engine
from ..harness.energy import EnergyMeter
from ..harness.from_json import from_json
from ..harness.interleave import ITERATIONS_PER_ROUND, EngineLoader, count_iterations, interleave
from ..harness.schedule import ProgressCounter
from .eval_log import TokenCount

TIMED = 16  # questions by default
_TASKS = 2  # questions of each iteration

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """One question that was asked alone.

    Attributes:
        prefill_s: seconds from submission to the first token.
        decode_s: seconds from there to the last token of the last sample.
        tokens: tokens of all samples.
        joules: energy; None without a meter, or with one that could not tell or does not resolve so short a
            time.
    """

    prefill_s: PositiveSeconds
    decode_s: Seconds
    tokens: TokenCount
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class TimedAnswers:
    """The same questions to each model.

    Attributes:
        date: start of the measurement in UTC, ISO 8601.
        meter: name of the energy meter; None without one.
        models: times of each model, in the order of the questions.
    """

    date: str
    meter: str | None
    models: tuple[tuple[TimedAnswer, ...], ...]


def time_answers(
    loaders: Sequence[EngineLoader],
    questions: Sequence[str],
    settings: GenerationSettings,
    progress: Progress,
    meter: EnergyMeter | None = None,
) -> TimedAnswers:
    """Ask each model each question, one at a time, in alternation; see interleave().

    Nothing is in the prefix cache: each question is the first one that an engine is asked.

    Args:
        loaders: load the models.
        questions: the questions, at least one.
        settings: prompt and generation settings.
        progress: called with iterations done and in all.
        meter: energy meter; None for none.

    Raises:
        RequestError: a question does not fit a model's context.
        ThirteenError: a loader raises it.
    """
    per_round = ITERATIONS_PER_ROUND * _TASKS
    rounds = -(-len(questions) // per_round)
    advance = ProgressCounter(progress, count_iterations(len(loaders), _TASKS, rounds))

    def ask(task: int, engine: Engine, iteration: int) -> TimedAnswer:
        question = questions[(_TASKS * iteration + task) % len(questions)]
        return _time_answer(engine, question, settings, meter)

    date = datetime.now(UTC).isoformat(timespec="seconds")
    tasks = interleave(loaders, [partial(ask, task) for task in range(_TASKS)], rounds, advance)
    models = tuple(
        tuple(chain.from_iterable(zip(*by_task, strict=True)))[: len(questions)]
        for by_task in zip(*tasks, strict=True)
    )
    return TimedAnswers(date, meter.source if meter else None, models)


def _time_answer(
    engine: Engine, question: str, settings: GenerationSettings, meter: EnergyMeter | None
) -> TimedAnswer:
    answer: TimedAnswer

    def ask() -> None:
        nonlocal answer
        engine.clear_prefix_cache()
        requests = settings.sample_requests(engine, question)
        start = perf_counter()
        ends = [handle.wait() for handle in engine.submit_all(requests, wait=True)]
        total_s = perf_counter() - start
        prefill_s = min(end.timings.first_token_s for end in ends)
        answer = TimedAnswer(prefill_s, total_s - prefill_s, sum(end.usage.completion_tokens for end in ends))

    if meter is None:
        ask()
        return answer
    joules = meter.joules(ask)
    resolved = answer.prefill_s + answer.decode_s >= meter.min_duration_s
    return TimedAnswer(answer.prefill_s, answer.decode_s, answer.tokens, joules if resolved else None)


def read_or_time(path: Path, identity: dict[str, Any], measure: Callable[[], TimedAnswers]) -> TimedAnswers:
    """Read the times of an earlier run from a file, or measure them and write the file.

    Args:
        path: the file, which need not exist. A run that was interrupted measures anew.
        identity: everything that the times depend on but for the machine's load, as JSON values. Its lists
            `records` and `questions` have an item for each model and question.
        measure: measures the times.

    Raises:
        RequestError: the file cannot be read, is not one of times, or belongs to another run.
        OutputError: the file cannot be written.
        ThirteenError: `measure` raises it.
    """
    with Journal(path, identity, "timing") as journal:
        if journal.entries:
            times = from_json(TimedAnswers, journal.entries[0], f"{path}: line 2")
            found = [len(model) for model in times.models]
            if found != (asked := [len(identity["questions"])] * len(identity["records"])):
                raise RequestError(f"{path}: line 2: {shorten(found)} questions by model, not {asked}")
            return times
        times = measure()
        journal.record(asdict(times))
    return times
