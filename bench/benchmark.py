"""Benchmark of a model with and without an adapter, or alone: latency, accuracy, and what they say."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import count
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Group
from rich.text import Text

from ..errors import RequestError
from ..files.gguf.header import read_header
from ..files.temporary_folder import temporary_folder
from ..quality.schedule import ProgressCounter, take_in_time
from ..quality.workload import Workload, load_engine
from ..runtime.batch.reproducible_batches import BatchExecutor, BatchJob, BatchResult, QuestionBatch
from ..runtime.machine.threads import default_threads
from ..stats.paired_ratio import ROUNDS_MIN
from .accuracy.accuracy import AccuracyReport, AccuracyRequest, accuracy_table, run_accuracy
from .accuracy.answer_time import TIMED
from .accuracy.datasets import QuestionSet
from .accuracy.evaluate import EvalProgress
from .accuracy.prompts import PromptSettings
from .harness.format import Table
from .harness.interleave import ITERATIONS_PER_ROUND
from .speed.latency import LatencyReport, LatencyRequest, latency_table, run_latency
from .speed.questions import (
    ModelSpeed,
    QuestionShape,
    QuestionSpeeds,
    count_question_iterations,
    measure_alone,
    measure_questions,
)
from .summary import accuracy_sentence, size_sentence, speed_sentence

QUESTION = QuestionShape(128, 64)
FIRST = 8  # questions that are asked before the others
_TRIAL = QuestionShape(32, 9)
QUICK = QuestionShape(32, 16)
_BATCH_GAIN = 2  # about how many times as fast as one the answers of a batch are decoded
_QUICK_TOKENS_MAX = 250  # of an answer
_SMALL = 300_000_000  # weights of a model whose quick benchmark takes less than a minute
_QUICK_S = {True: 50, False: 160}  # by whether it is small; the rest of the minute is for the first load
_SPEED_SHARE = 0.35  # of a quick benchmark's time; its answers take the rest
_MEMORY_RUNS = 3  # a model's iterations in other processes, for its memory

Announce = Callable[[str, float], None]  # what comes next, and the seconds that it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRequest:
    """Options of a benchmark.

    Attributes:
        model: a GGUF file.
        adapter: a LoRA in a GGUF file: the model is measured with and without it.
        questions: for the accuracy; None leaves it out.
        settings: prompt and generation settings.
        rounds: rounds of the latency, at least 8.
        threads: threads that compute, for the latency; by default one per physical core.
        quick: decode and right answers alone, of a short question and of as many as fit the time.
        started: when the time of a quick benchmark began, by perf_counter().
    """

    model: Path
    adapter: Path | None = None
    questions: QuestionSet | None = None
    settings: PromptSettings = field(default_factory=PromptSettings)
    rounds: int = ROUNDS_MIN
    threads: int | None = None
    quick: bool = False
    started: float = field(default_factory=perf_counter)


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """Result of a benchmark.

    Attributes:
        verdict: what was found, in sentences: speed, size, right answers.
        speed: the model's, if it was measured alone.
        latency: the model's with the adapter against that without.
        accuracy: of the model, with and without the adapter; None without questions.
        quick: speeds with and without the adapter at a short question, in a quick benchmark.
    """

    verdict: str
    speed: ModelSpeed | None
    latency: LatencyReport | None
    accuracy: AccuracyReport | None
    quick: QuestionSpeeds | None = None


def run_benchmark(
    request: BenchmarkRequest,
    announce: Announce,
    progress: EvalProgress,
    tell: Callable[[str], None] = lambda sentence: None,
) -> BenchmarkReport:
    """Estimate the time, then measure.

    Args:
        request: what is measured.
        announce: called with what comes next and its seconds, before any of it.
        progress: called with a label, and with what is done and in all.
        tell: called with each sentence of the verdict when it is known.

    Raises:
        ThirteenError: run_latency() or run_accuracy() raises it.
        RequestError: all answers to the first questions were truncated.
    """
    model, adapter, rounds = request.model, request.adapter, request.rounds
    models, shape = 2 if adapter else 1, QUICK if request.quick else QUESTION
    threads = default_threads() if request.threads is None else request.threads
    workload = Workload(shape.prompt_tokens, shape.answer_tokens, threads)
    loaders = [partial(load_engine, model, lora, workload) for lora in (None, adapter)[:models]]
    end = request.started + _QUICK_S[read_header(model).weights < _SMALL] if request.quick else inf
    trial = measure_alone(loaders[-1], _TRIAL, 1)
    question_s = shape.prompt_tokens / trial.prefill + shape.answer_tokens / trial.decode
    iterations = count_question_iterations(models, [shape], rounds)
    memory_runs = _MEMORY_RUNS * models if adapter and not request.quick else 0
    total_s = question_s * (iterations + memory_runs)
    now = perf_counter()
    until = now + (end - now) * _SPEED_SHARE
    asked = _accuracy_request(request, trial, end - until) if request.questions else None
    if asked and request.quick:
        tokens = len(asked.questions.questions) * models * asked.settings.max_tokens
        total_s = min(total_s, until - now) + min(tokens / trial.decode / _BATCH_GAIN, end - until)
    elif asked:
        total_s += _try_questions(asked, trial, announce, progress)
    announce(f"latency {'and accuracy take' if asked else 'takes'} about", total_s)

    speed = latency = accuracy = quick = None
    sentences = list[str]()

    def found(sentence: str) -> None:
        sentences.append(sentence)
        tell(sentence)

    advance = ProgressCounter(partial(progress, "latency"), iterations)
    if not adapter:
        speed = measure_alone(loaders[0], shape, rounds, advance, until)
        found(f"Speed: the model writes {speed.decode:.0f} tokens/s.")
        found(f"Size: the model has {model.stat().st_size / 1e6:,.1f} MB.")
    else:
        if request.quick:
            (quick,) = (measured,) = measure_questions(loaders, [shape], rounds, advance, until)
        else:
            paired = LatencyRequest(
                base=model, adapted=model, adapter=adapter, rounds=rounds, questions=(shape,), threads=threads
            )
            latency = run_latency(paired, partial(progress, "latency"))
            measured = latency.middle
        found(speed_sentence(measured, len(measured.decode.base) // ITERATIONS_PER_ROUND))
        base_bytes = model.stat().st_size
        found(size_sentence(base_bytes, base_bytes + adapter.stat().st_size))
    if asked:
        accuracy = run_accuracy(asked, _answer_until(end, models), progress)
        found(accuracy_sentence(accuracy, len(asked.questions.questions) if request.quick else 0))
    return BenchmarkReport(" ".join(sentences), speed, latency, accuracy, quick)


@dataclass(frozen=True, kw_only=True)
class _QuickSettings(PromptSettings):
    """Settings with batches so small that their number fits the time."""

    batch_questions: int

    @property
    def batch_size(self) -> int:
        """Questions per batch."""
        return self.batch_questions


def _answer_until(end: float, models: int) -> BatchExecutor:
    """Answers the batches of so many models, one after the other; each has its part of the time."""
    left = count(models, -1)

    def run(job: BatchJob, batches: Iterable[QuestionBatch]) -> Generator[BatchResult, None, None]:
        now = perf_counter()
        return job.run(take_in_time(batches, now + (end - now) / next(left)))

    return run


def _accuracy_request(request: BenchmarkRequest, trial: ModelSpeed, seconds: float) -> AccuracyRequest:
    """The questions to ask; in a quick benchmark, in batches of which several fit the seconds."""
    assert request.questions, "there are some"
    model, adapter, timed = request.model, request.adapter, 0 if request.quick else TIMED
    questions, settings, base = request.questions, request.settings, model if adapter else None
    if request.quick:
        max_tokens = min(settings.max_tokens, _QUICK_TOKENS_MAX)
        answers = seconds / (2 if base else 1) * _BATCH_GAIN * trial.decode / max_tokens
        given = {one.name: getattr(settings, one.name) for one in fields(settings)}
        size = max(1, min(FIRST, int(answers / settings.rule.width)))
        settings = _QuickSettings(**given | {"max_tokens": max_tokens}, batch_questions=size)
        questions = questions.spread()
    return AccuracyRequest(
        model=model, base=base, adapter=adapter, questions=questions, settings=settings, timed=timed
    )


def _try_questions(
    request: AccuracyRequest, trial: ModelSpeed, announce: Announce, progress: EvalProgress
) -> float:
    """Ask the first questions, and estimate the seconds that all of them take."""
    total, max_tokens = len(request.questions.questions), request.settings.max_tokens
    first = request.questions.subsample(FIRST)
    asked = len(first.questions)
    announce(
        f"the first {asked} questions take at most",
        asked * (2 if request.base else 1) * max_tokens / trial.decode,
    )
    start = perf_counter()
    with temporary_folder("first-questions-") as folder:
        report = run_accuracy(replace(request, questions=first, records=folder, timed=0), progress=progress)
    batch_s = perf_counter() - start
    scores = [result.scores for result in (report.base, report.adapted) if result]
    if all(one.truncated == asked for one in scores):
        raise RequestError(
            f"all answers to the first {asked} questions were cut off at {max_tokens} tokens: "
            f"allow more, such as {2 * max_tokens}"
        )
    alone_s = sum(one.tokens for one in scores) / trial.decode
    return batch_s * total / asked + min(request.timed, total) * alone_s


def benchmark_tables(report: BenchmarkReport) -> Group:
    """The verdict, and the tables of what was measured; of a quick comparison the verdict alone."""
    tables: list[Any] = [Text(report.verdict)]
    if report.quick:
        return Group(*tables)
    if speed := report.speed:
        rows = (
            ("prefill, tokens/s", f"{speed.prefill:.1f}"),
            ("first token, ms", f"{1000 * speed.first_token_s:.1f}"),
            ("decode, tokens/s", f"{speed.decode:.1f}"),
            ("time to an answer, s", f"{speed.answer_s:.2f}"),
        )
        tables.append(Table(f"a question of {speed.question} tokens", ("", "median"), rows))
    if report.latency:
        tables.append(latency_table(report.latency))
    if report.accuracy:
        tables.append(accuracy_table(report.accuracy))
    return Group(*tables)
