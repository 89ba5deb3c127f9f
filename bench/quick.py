"""Speed, size and right answers in a minute, whatever the machine does: the work is what fits the time."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from itertools import count
from time import perf_counter

from ..files.cache_folder import temporary_folder
from ..files.progress import QUIET, Progress, Stage, no_progress
from ..runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchResult, QuestionBatch
from ..runtime.options import MAX_TOKENS
from .accuracy.accuracy import AccuracyReport, AccuracyRequest, run_accuracy
from .environment import ModelSource
from .latency import LatencyReport, run_latency
from .rounds import take_in_time
from .workload import Workload

SECONDS = 50  # of the minute; the rest is for what is started last
_SPEED_SHARE = 0.4  # of the time; the answers take the rest
_TRIAL = (32, 8)  # tokens of a question, and of its answer after the first
_WORK = ((32, 16), (16, 8), (8, 4), (2, 2))  # what is measured: the first of which three rounds fit
_ROUNDS = 3
_BATCH_GAIN = 2  # about how many times as fast as one the answers of a batch are decoded
_BATCH_MAX = 8
_BATCHES = 2  # at least so many fit the time of a model
_TOKENS_MAX = 250  # of an answer


def quick_latency(
    models: Sequence[ModelSource], threads: int, end: float, progress: Progress = no_progress
) -> LatencyReport:
    """Measure a model, or base and adapted model, in a part of the time until `end` of perf_counter()."""
    start = perf_counter()
    trial = run_latency(models[-1:], Workload(*_TRIAL, threads), rounds=1, until=start)
    trial_s = trial.answer.medians[0]
    load_s = max(0, perf_counter() - start - 3 * trial_s)
    now = perf_counter()
    until = now + _SPEED_SHARE * (end - now)
    model_s = (until - now) / _ROUNDS / len(models) - load_s  # what a model has in a round
    fitting = (work for work in _WORK if 3 * trial_s * sum(work) / sum(_TRIAL) < model_s)
    work = Workload(*next(fitting, _WORK[-1]), threads)
    return run_latency(models, work, until=until, progress=progress)


def quick_accuracy(
    request: AccuracyRequest, tokens_per_s: float, end: float, stage: Stage = QUIET.stage
) -> AccuracyReport:
    """Ask as many of the questions as the models answer until `end` of perf_counter()."""
    models, settings = len(request.models), request.settings
    tokens = (end - perf_counter()) / models * _BATCH_GAIN * tokens_per_s / _BATCHES
    most = min(settings.options.max_tokens or MAX_TOKENS, _TOKENS_MAX, max(1, int(tokens)))
    quick = replace(
        settings,
        options=replace(settings.options, max_tokens=most),
        batch_questions=max(1, min(_BATCH_MAX, int(tokens / most))),
    )
    with temporary_folder("quick-") as folder:
        limited = replace(
            request, questions=request.questions.shuffled(), settings=quick, records=folder, timed=0
        )
        return run_accuracy(limited, _answer_until(end, models), stage)


def _answer_until(end: float, models: int) -> BatchExecutor:
    """Answers the batches of so many models, one after the other; each has its part of the time."""
    left = count(models, -1)

    def run(job: BatchJob, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        now = perf_counter()
        return job.run(take_in_time(batches, now + (end - now) / next(left)))

    return run
