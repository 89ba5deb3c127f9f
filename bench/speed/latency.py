"""Base against adapted model in the time to an answer, speed, memory and size.

A shared or warm machine drifts by more than the difference in question, so single figures say little. The two
models are measured in alternation, A B B A A B B A …, so that drift affects both alike and cancels in their
ratio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import TypeVar

from ...errors import RequestError
from ...files.gguf.decoder_shape import read_decoder_shape
from ...files.gguf.header import read_header
from ...files.progress import Progress, no_progress
from ...quality.environment import BenchReport, report_head
from ...quality.schedule import ProgressCounter
from ...quality.workload import Workload, load_engine
from ...runtime.machine.threads import default_threads
from ...runtime.validation import check_integer
from ...stats.interval import Interval
from ...stats.paired_ratio import NOISE_MAX, RATIO_LEVEL, ROUNDS_MIN, too_noisy
from ..harness.format import NOT_AVAILABLE, Table
from ..harness.interleave import ITERATIONS_PER_ROUND, PairedMeasurement
from ..memory.memory import MeasuredModel, measure_model
from ..memory.roofline import Roofline, decode_bytes, find_roofline, measure_read_bandwidth
from .questions import QUESTIONS, QuestionShape, QuestionSpeeds, count_question_iterations, measure_questions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LatencyReport(BenchReport):
    """Comparison of a base and an adapted model.

    Attributes:
        threads: threads that computed.
        rounds: number of rounds, of ITERATIONS_PER_ROUND iterations of each model.
        base: the base model's file and memory.
        adapted: the adapted model's.
        questions: speeds at questions with their answers, in order of both lengths.
        roofline: the fraction of the memory roofline that decode reaches.
        verdict: conclusions in words, a line each. Each interval stands alone: with equal models, about one
            in a hundred shows a difference.
    """

    threads: int
    rounds: int
    base: MeasuredModel
    adapted: MeasuredModel
    questions: tuple[QuestionSpeeds, ...]
    roofline: Roofline
    verdict: tuple[str, ...]

    @property
    def middle(self) -> QuestionSpeeds:
        """Speeds at the middle question."""
        return _middle(self.questions)

    @property
    def by_length(self) -> tuple[QuestionSpeeds, ...]:
        """Speeds by the length of the prompt, at questions with their longest answer."""
        return tuple({at.tokens: at for at in self.questions}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRequest:
    """Options of a comparison.

    Attributes:
        base: a GGUF file.
        adapted: another one, or the same with `adapter`.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        rounds: number of rounds, at least 8.
        questions: those that fit the models' context are asked.
        threads: threads that compute; by default one per physical core.
    """

    base: Path
    adapted: Path
    adapter: Path | None = None
    rounds: int = ROUNDS_MIN
    questions: Sequence[QuestionShape] = QUESTIONS
    threads: int | None = None


def run_latency(request: LatencyRequest, progress: Progress = no_progress) -> LatencyReport:
    """Measure two models in alternation.

    Memory and load time come first, each model in a separate process, then memory bandwidth, then the rounds,
    each with a warm-up iteration of both models.

    Args:
        request: what is measured.
        progress: called with iterations done and in all, plus one for each model's memory.

    Raises:
        FileError: a file is not a GGUF, is damaged, or cannot be run by this build; the adapter does not fit
            the adapted model.
        RequestError: a number is out of range, or all questions do not fit a model's context.
    """
    base, adapted, adapter, rounds = request.base, request.adapted, request.adapter, request.rounds
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    for path in filter(None, (base, adapted, adapter)):
        read_header(path)  # a bad file fails before the first measurement
    fitting, skipped = _split_by_context(request.questions, (base, adapted))
    workload = _workload(fitting, default_threads() if request.threads is None else request.threads)
    head = report_head()
    advance = ProgressCounter(progress, 2 + count_question_iterations(2, fitting, rounds))
    files = ((base, None), (adapted, adapter))
    models = []
    for file in files:
        models.append(measure_model(*file, workload))
        advance()
    bandwidth = measure_read_bandwidth(workload.threads)
    loaders = [partial(load_engine, *file, workload) for file in files]
    answered = measure_questions(loaders, fitting, rounds, advance)
    nbytes = [sum(decode_bytes(read_header(path)) for path in file if path) for file in files]
    shortest = {one.tokens: one for one in answered}[answered[0].tokens]  # where the KV cache counts least
    decode = _middle(answered).decode.ratio
    return LatencyReport(
        *head,
        threads=workload.threads,
        rounds=rounds,
        base=models[0],
        adapted=models[1],
        questions=answered,
        roofline=find_roofline(bandwidth, shortest.tokens, nbytes, shortest.decode),
        verdict=(*_verdict(answered, decode, rounds), *skipped),
    )


def _middle(questions: Sequence[T]) -> T:
    """The middle one of sorted questions, which stands for all of them in a line."""
    return questions[len(questions) // 2]


def _split_by_context(
    questions: Sequence[QuestionShape], models: Sequence[Path]
) -> tuple[list[QuestionShape], list[str]]:
    """Split questions into those that both models have room for, and a line that names the others."""
    context = min(read_decoder_shape(read_header(model)).context for model in models)
    questions = sorted(set(questions))
    skipped = [question for question in questions if question.tokens > context]
    names = ", ".join(map(str, skipped))
    line = f"skipped, longer than the context of {context} tokens: {names} tokens"
    if len(skipped) == len(questions):
        raise RequestError(f"bench: no question is measured; {line}")
    return [question for question in questions if question not in skipped], [line] if skipped else []


def _workload(questions: Sequence[QuestionShape], threads: int) -> Workload:
    """The work of the middle question, with a context for all of them."""
    shape, longest = _middle(questions), max(question.tokens for question in questions)
    return Workload(shape.prompt_tokens, shape.answer_tokens - 1, threads, longest=longest)


def _verdict(questions: Sequence[QuestionSpeeds], decode: Interval, rounds: int) -> Iterator[str]:
    for question in questions:
        name = f"time to an answer, {question.shape} tokens"
        yield describe_difference(name, question.answer.ratio)
    if too_noisy(decode):
        yield describe_noise(decode, rounds)


def latency_table(report: LatencyReport) -> Table:
    """Tabulate both models side by side, with the verdict and the environment below."""
    return Table(
        f"{_file_names(report.base)} vs {_file_names(report.adapted)}",
        ("", "base", "adapted", f"adapted / base ({RATIO_LEVEL})"),
        tuple(_rows(report)),
        (
            *report.verdict,
            report.roofline.describe(report.threads),
            f"medians of {report.rounds} rounds of {2 * ITERATIONS_PER_ROUND} iterations",
            report.environment(report.threads),
        ),
    )


def _file_names(model: MeasuredModel) -> str:
    paths = [model.path, model.adapter.path] if model.adapter else [model.path]
    return " + ".join(Path(path).name for path in paths)


def _rows(report: LatencyReport) -> Iterator[tuple[str, ...]]:
    base, adapted, roofline = report.base, report.adapted, report.roofline
    for question in report.questions:
        yield _paired_row(f"time to an answer, {question.shape} tokens, s", question.answer, 1, 2)
    for length in report.by_length:
        yield _paired_row(f"prefill {length.tokens}, tokens/s", length.prefill, 1)
        yield _paired_row(f"first token after {length.tokens}, ms", length.first_token, 1000)
        yield _paired_row(f"decode after {length.tokens}, tokens/s", length.decode, 1)
    title = f"decode after {roofline.depth}, % of the memory roofline"
    yield _row(title, roofline.base_fraction, roofline.adapted_fraction, 100)
    yield "load, once, s", f"{base.memory.load_s:.2f}", f"{adapted.memory.load_s:.2f}", ""
    yield _row("start to first token, s", base.memory.warm_start_s, adapted.memory.warm_start_s, 1, 2)
    yield _row("  file not in the cache, s", base.memory.cold_start_s, adapted.memory.cold_start_s, 1, 2)
    yield _row("peak memory, MB", base.memory.peak_rss_bytes, adapted.memory.peak_rss_bytes, 1e-6)
    yield _row("file, MB", base.total_bytes, adapted.total_bytes, 1e-6, 1)
    yield _row("bits per weight", base.bits_per_weight, adapted.bits_per_weight, 1, 2)


def _paired_row(title: str, measurement: PairedMeasurement, scale: float, digits: int = 1) -> tuple[str, ...]:
    medians = (
        f"{scale * median:.{digits}f}" for median in (measurement.base_median, measurement.adapted_median)
    )
    return title, *medians, measurement.ratio.text(3)


def _row(
    title: str, base: float | None, adapted: float | None, scale: float, digits: int = 0
) -> tuple[str, ...]:
    if base is None or adapted is None:
        return title, NOT_AVAILABLE, NOT_AVAILABLE, ""
    return title, f"{scale * base:.{digits}f}", f"{scale * adapted:.{digits}f}", f"{adapted / base:.3f}"


def describe_difference(what: str, ratio: Interval) -> str:
    """Say how much less or more time the second model takes, or that the difference is not significant."""
    low, high = (100 * (bound - 1) for bound in (ratio.low, ratio.high))
    if not ratio.excludes_one:
        return f"{what}: no significant difference ({low:+.1f} to {high:+.1f} %)"
    word = "slower" if ratio.estimate > 1 else "faster"
    low, high = sorted(map(abs, (low, high)))
    return f"{what}: {word} by {100 * abs(ratio.estimate - 1):.1f} % ({low:.1f} to {high:.1f} %)"


def more_rounds(half_width: float, rounds: int) -> int:
    """Estimate how many more rounds would make an interval narrow enough; 0 if it is.

    The width of an interval falls with the square root of their number.
    """
    needed = rounds * (half_width / NOISE_MAX) ** 2
    return max(0, ceil(needed - 1e-6) - rounds)


def describe_noise(decode: Interval, rounds: int) -> str:
    """Say how wide the interval of decode is after a number of rounds, and what would make it narrower."""
    half_width = decode.half_width
    return (
        f"too noisy: the {RATIO_LEVEL} interval of the decode ratio is ±{100 * half_width:.1f} % wide, "
        f"more than ±{100 * NOISE_MAX:.0f} %; take about {more_rounds(half_width, rounds)} more rounds, or "
        "stop other programs"
    )
