"""Benchmark of a model with and without an adapter, or alone: latency, accuracy, and a verdict in a line."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Group
from rich.text import Text

from ..errors import RequestError
from ..files.temporary_folder import temporary_folder
from ..quality.schedule import ProgressCounter
from ..quality.workload import Workload, load_engine
from ..runtime.machine.threads import default_threads
from ..stats.interval import Interval
from ..stats.paired_ratio import NOISE_MAX, ROUNDS_MIN, too_noisy
from .accuracy.accuracy import AccuracyReport, AccuracyRequest, accuracy_table, run_accuracy
from .accuracy.accuracy_metrics import PairedScores
from .accuracy.datasets import QuestionSet
from .accuracy.evaluate import EvalProgress
from .accuracy.prompts import PromptSettings
from .harness.format import Table
from .speed.latency import LatencyReport, LatencyRequest, latency_table, more_rounds, run_latency
from .speed.questions import ModelSpeed, QuestionShape, count_question_iterations, measure_alone

QUESTION = QuestionShape(128, 64)
FIRST = 8  # questions that are asked before the others
_TRIAL = QuestionShape(32, 9)
_MEMORY_RUNS = 3  # a model's iterations in other processes, for its memory

_TWO_DIGITS_MIN = 1.01  # a smaller ratio has four

Conclusion = tuple[str, str]  # what was found, and what would settle it; "" if it is settled
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
    """

    model: Path
    adapter: Path | None = None
    questions: QuestionSet | None = None
    settings: PromptSettings = field(default_factory=PromptSettings)
    rounds: int = ROUNDS_MIN
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """Result of a benchmark.

    Attributes:
        verdict: conclusions in a line.
        speed: the model's, if it was measured alone.
        latency: the model's with the adapter against that without.
        accuracy: of the model, with and without the adapter; None without questions.
    """

    verdict: str
    speed: ModelSpeed | None
    latency: LatencyReport | None
    accuracy: AccuracyReport | None


def run_benchmark(request: BenchmarkRequest, announce: Announce, progress: EvalProgress) -> BenchmarkReport:
    """Estimate the time, then measure.

    Args:
        request: what is measured.
        announce: called with what comes next and its seconds, before any of it.
        progress: called with a label, and with what is done and in all.

    Raises:
        ThirteenError: run_latency() or run_accuracy() raises it.
        RequestError: all answers to the first questions were truncated.
    """
    model, adapter, rounds = request.model, request.adapter, request.rounds
    models = 2 if adapter else 1
    threads = default_threads() if request.threads is None else request.threads
    workload = Workload(QUESTION.prompt_tokens, QUESTION.answer_tokens, threads)
    trial = measure_alone(partial(load_engine, model, adapter, workload), _TRIAL, 1)
    question_s = QUESTION.prompt_tokens / trial.prefill + QUESTION.answer_tokens / trial.decode
    iterations = count_question_iterations(models, [QUESTION], rounds)
    total_s = question_s * (iterations + (_MEMORY_RUNS * models if adapter else 0))
    asked = None
    if request.questions:
        base, questions, settings = model if adapter else None, request.questions, request.settings
        asked = AccuracyRequest(
            model=model, base=base, adapter=adapter, questions=questions, settings=settings
        )
        total_s += _try_questions(asked, trial, announce, progress)
    announce(f"latency {'and accuracy take' if asked else 'takes'} about", total_s)

    speed = latency = accuracy = None
    conclusions = list[Conclusion]()
    if adapter:
        paired = LatencyRequest(
            base=model, adapted=model, adapter=adapter, rounds=rounds, questions=(QUESTION,), threads=threads
        )
        latency = run_latency(paired, partial(progress, "latency"))
        conclusions.append(describe_speed(latency.middle.answer.ratio, rounds))
    else:
        advance = ProgressCounter(partial(progress, "latency"), iterations)
        speed = measure_alone(partial(load_engine, model, None, workload), QUESTION, rounds, advance)
        text = f"first token after {speed.first_token_s:.2f} s, then {speed.decode:.1f} tokens/s"
        conclusions.append((text, ""))
    if asked:
        accuracy = run_accuracy(asked, progress=progress)
        right = f"{accuracy.adapted.scores.accuracy.text(1, 100)} % right"
        conclusions.append(describe_accuracy(accuracy.paired) if accuracy.paired else (right, ""))
    return BenchmarkReport(verdict(conclusions), speed, latency, accuracy)


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


def describe_speed(ratio: Interval, rounds: int) -> Conclusion:
    """Compare the time to an answer."""
    noisy = too_noisy(ratio)
    so_far = " so far" if noisy else ""
    missing = f"{more_rounds(ratio.half_width, rounds)} more rounds" if noisy else ""
    if not ratio.excludes_one:
        return f"equally fast{so_far} ({ratio.low:.2f} to {ratio.high:.2f} times)", missing
    word, times = "slower", ratio
    if ratio.estimate < 1:
        word, times = "faster", Interval(1 / ratio.high, 1 / ratio.estimate, 1 / ratio.low)
    text = times.text(2 if times.low >= _TWO_DIGITS_MIN else 4)
    return text.replace(" ", f" times {word}{so_far} ", 1), missing


def describe_accuracy(paired: PairedScores) -> Conclusion:
    """Compare the right answers."""
    points = paired.difference
    interval = f"({100 * points.low:+.1f} to {100 * points.high:+.1f} points)"
    if paired.differs:
        word = "more" if points.estimate > 0 else "less"
        return f"{word} accurate by {100 * abs(points.estimate):.1f} points {interval}", ""
    if questions := paired.more_questions(NOISE_MAX):
        return f"equally accurate so far {interval}", f"{questions} more questions"
    return f"equally accurate {interval}", ""


def verdict(conclusions: Iterable[Conclusion]) -> str:
    """Join conclusions to a line, with what would settle those that are open."""
    texts, missing = zip(*conclusions, strict=True)
    needed = " and ".join(filter(None, missing))
    return ", ".join(texts) + (f": about {needed} would settle it" if needed else "")


def benchmark_tables(report: BenchmarkReport) -> Group:
    """The verdict, and the tables of what was measured."""
    tables: list[Any] = [Text(report.verdict)]
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
