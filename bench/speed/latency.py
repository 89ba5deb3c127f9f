"""Base against adapted model in the time to an answer, speed, memory and size.

A shared or warm machine drifts by more than the difference in question, so single figures say little. The two
models are measured in alternation, A B B A A B B A …, so that drift affects both alike and cancels in their
ratio.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.table import Table

from ...errors import ModelFileError, RequestError
from ...files.gguf.header import read_header
from ...files.gguf.model_shape import read_model_shape
from ...files.progress import Progress, no_progress
from ...runtime.validation import check_integer
from ...stats.paired_ratio import RATIO_LEVEL, ROUNDS_MIN
from ..harness.environment import BenchReport, ReportHead, report_head, this_commit
from ..harness.format import NOT_AVAILABLE, report_table
from ..harness.interleave import ITERATIONS_PER_ROUND, PairedMeasurement, count_iterations
from ..harness.schedule import ProgressCounter
from ..harness.verdict_text import describe_difference, describe_noise, more_rounds, too_noisy
from ..harness.workload import Workload, load_engine
from ..memory.measured_model import MeasuredModel, measure_model
from ..memory.roofline import (
    Roofline,
    decode_bytes,
    describe_bandwidth,
    find_roofline,
    measure_read_bandwidth,
)
from .ab_speed import ABSpeeds, compare_speeds
from .length_sweep import (
    LENGTH_ROUNDS,
    QUESTION_ROUNDS,
    QUESTIONS,
    LengthSpeeds,
    QuestionShape,
    QuestionSpeeds,
    check_lengths,
    count_question_iterations,
    length_questions,
    longest_text,
    measure_lengths,
    measure_questions,
)

ROUNDS = 20  # without questions: an iteration is shorter

ModelFiles = tuple[Path, Path | None]  # a GGUF file, and a LoRA applied at run time


@dataclass(frozen=True, slots=True)
class LatencyReport(BenchReport):
    """Comparison of a base and an adapted model.

    Attributes:
        commit: git commit of the checkout; see this_commit().
        settings: work of an iteration; with questions, that of the middle one.
        rounds: number of rounds, of ITERATIONS_PER_ROUND iterations of each model.
        base: the base model's file and memory.
        adapted: the adapted model's.
        question_tokens: see ABSpeeds, also for the next three. With questions, they are of the middle one.
        prefill: prompt tokens per second.
        first_token: seconds to the first text.
        decode: tokens per second.
        lengths: speeds at prompts of several lengths.
        noisy: whether the run was too noisy for a conclusion on the decode speed.
        more_rounds: about how many more rounds a conclusion needs; 0 if none.
        verdict: conclusions in words, a line each. Each interval stands alone: with equal models, about one
            in a hundred shows a difference.
        questions: speeds at questions with their answers, in order of both lengths.
        roofline: the fraction of the memory roofline that decode reaches; None in reports of 0.2.0.
    """

    commit: str | None
    settings: Workload
    rounds: int
    base: MeasuredModel
    adapted: MeasuredModel
    question_tokens: tuple[int, int]
    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    lengths: tuple[LengthSpeeds, ...]
    noisy: bool
    more_rounds: int
    verdict: tuple[str, ...]
    questions: tuple[QuestionSpeeds, ...] = ()
    roofline: Roofline | None = None

    @property
    def by_length(self) -> tuple[LengthSpeeds, ...]:
        """Speeds by the length of the prompt, at questions with their longest answer and at lengths."""
        speeds = (*self.lengths, *self.questions)  # of equal lengths, the last one counts
        return tuple(at for _, at in sorted({at.tokens: at for at in speeds}.items()))


def run_latency(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    adapted: Path,
    *,
    workload: Workload | None = None,
    adapter: Path | None = None,
    rounds: int | None = None,
    lengths: Sequence[int] = (),
    questions: Sequence[QuestionShape] = QUESTIONS,
    progress: Progress = no_progress,
) -> LatencyReport:
    """Measure two models in alternation.

    Memory and load time come first, each model in a separate process, then memory bandwidth, then the rounds,
    each with a warm-up iteration of both models.

    Args:
        base: a GGUF file.
        adapted: another one, or the same with `adapter`.
        workload: threads and batch size; without questions, also the work of an iteration.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        rounds: number of rounds, at least 8; by default QUESTION_ROUNDS, or ROUNDS without questions.
        lengths: prompt lengths at which prefill and decode are measured as well.
        questions: those that fit the models' context are asked; if empty, `workload` is run instead.
        progress: called with iterations done and in all, plus one for each model's memory.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter does not fit the adapted model.
        RequestError: a number is out of range, or an iteration or all questions do not fit a model's context.
    """
    rounds = (QUESTION_ROUNDS if questions else ROUNDS) if rounds is None else rounds
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    lengths, workload = check_lengths(lengths), workload or Workload()
    for path in filter(None, (base, adapted, adapter)):
        read_header(path)  # a bad file fails before the first measurement
    _check_context(lengths, (base, adapted))
    fitting, skipped = _split_by_context(questions, (base, adapted))
    workload = _question_workload(fitting, workload) if fitting else workload
    head = report_head()
    advance = ProgressCounter(progress, _count_steps(fitting, rounds, lengths))
    files = ((base, None), (adapted, adapter))
    models = _measure_models(files, workload, advance)
    bandwidth = measure_read_bandwidth(workload.threads)
    workload = replace(workload, longest=longest_text((*fitting, *length_questions(lengths))))
    loaders = [partial(load_engine, *file, workload) for file in files]
    answered = measure_questions(loaders, fitting, rounds, advance)
    speeds = _middle_speeds(answered) if answered else compare_speeds(loaders, workload, rounds, advance)
    by_length = measure_lengths(loaders, lengths, advance)
    report = _report(head, workload, rounds, models, speeds, by_length, answered)
    return replace(report, verdict=(*report.verdict, *skipped), roofline=_roofline(report, files, bandwidth))


def _count_steps(questions: Sequence[QuestionShape], rounds: int, lengths: Sequence[int]) -> int:
    """Iterations in all, and one step for each model's memory."""
    iterations = count_question_iterations(2, questions, rounds) or count_iterations(2, 1, rounds)
    return 2 + iterations + count_iterations(2, len(lengths), LENGTH_ROUNDS)


def _measure_models(
    files: Sequence[ModelFiles], workload: Workload, advance: Callable[[], None]
) -> list[MeasuredModel]:
    models = []
    for file in files:
        models.append(measure_model(*file, workload))
        advance()
    return models


def _model_context(model: Path) -> int:
    """Tokens of the context that a model was trained for."""
    return read_model_shape(read_header(model), ModelFileError).context


def _check_context(lengths: Sequence[int], models: Sequence[Path]) -> None:
    """Raise RequestError if a model has no room for the longest of these lengths and its decode."""
    tokens = longest_text(length_questions(lengths))
    for model in models:
        if tokens > (context := _model_context(model)):
            raise RequestError(
                f"{model}: a text of {tokens} tokens does not fit the {context} tokens of its context"
            )


def _split_by_context(
    questions: Sequence[QuestionShape], models: Sequence[Path]
) -> tuple[list[QuestionShape], list[str]]:
    """Split questions into those that both models have room for, and a line that names the others."""
    if not questions:
        return [], []
    context = min(map(_model_context, models))
    questions = sorted(set(questions))
    skipped = [question for question in questions if question.tokens > context]
    names = ", ".join(map(str, skipped))
    line = f"skipped, longer than the context of {context} tokens: {names} tokens"
    if len(skipped) == len(questions):
        raise RequestError(f"bench: no question is measured; {line}")
    return [question for question in questions if question not in skipped], [line] if skipped else []


def _question_workload(questions: Sequence[QuestionShape], workload: Workload) -> Workload:
    """The work of the middle question, with a context for all of them."""
    middle = questions[len(questions) // 2]
    return replace(
        workload,
        prompt_tokens=middle.prompt_tokens,
        decode_tokens=middle.answer_tokens - 1,
        longest=longest_text(questions),
    )


def _middle_speeds(answered: Sequence[QuestionSpeeds]) -> ABSpeeds:
    """Speeds of the middle question."""
    middle = answered[len(answered) // 2]
    return ABSpeeds(middle.prefill, middle.first_token, middle.decode, (middle.tokens, middle.tokens))


def _roofline(report: LatencyReport, files: Sequence[ModelFiles], bandwidth: float) -> Roofline:
    """The roofline at the shallowest decode, where the KV cache counts least."""
    depth, decode = report.settings.prompt_tokens, report.decode
    if report.questions:
        depth, decode = report.questions[0].tokens, report.questions[0].decode
    nbytes = [sum(decode_bytes(read_header(path)) for path in file if path) for file in files]
    return find_roofline(bandwidth, depth, nbytes, (decode.base_median, decode.adapted_median))


def _report(  # noqa: PLR0913, PLR0917 - the parts of the report
    head: ReportHead,
    workload: Workload,
    rounds: int,
    models: Sequence[MeasuredModel],
    speeds: ABSpeeds,
    lengths: tuple[LengthSpeeds, ...],
    questions: tuple[QuestionSpeeds, ...],
) -> LatencyReport:
    base, adapted = models
    return LatencyReport(
        *head,
        commit=this_commit(),
        settings=workload,
        rounds=rounds,
        base=base,
        adapted=adapted,
        question_tokens=speeds.question_tokens,
        prefill=speeds.prefill,
        first_token=speeds.first_token,
        decode=speeds.decode,
        lengths=lengths,
        noisy=too_noisy(speeds.decode.ratio),
        more_rounds=more_rounds(speeds.decode.ratio, rounds),
        verdict=tuple(_verdict(speeds, questions, rounds)),
        questions=questions,
    )


def _verdict(speeds: ABSpeeds, questions: Sequence[QuestionSpeeds], rounds: int) -> Iterator[str]:
    answers = [(f"time to an answer, {question.shape} tokens", question.answer) for question in questions]
    for name, measurement in answers or speeds.by_name:
        yield describe_difference(name, measurement.ratio, higher_is_better=measurement.higher_is_better)
    if too_noisy(speeds.decode.ratio):
        yield describe_noise("decode", speeds.decode.ratio, rounds)


def latency_table(report: LatencyReport) -> Table:
    """Tabulate both models side by side, with the verdict and the environment below."""
    title = f"{_file_names(report.base)} vs {_file_names(report.adapted)}"
    ratio = f"adapted / base ({RATIO_LEVEL})"
    table = report_table(title, _caption(report), "", "base", "adapted", ratio)
    for row in _rows(report):
        table.add_row(*row)
    return table


def _file_names(model: MeasuredModel) -> str:
    paths = [model.path, model.adapter.path] if model.adapter else [model.path]
    return " + ".join(Path(path).name for path in paths)


def _rows(report: LatencyReport) -> list[tuple[str, ...]]:
    base, adapted = report.base, report.adapted
    return [
        *_speed_rows(report),
        *(row for length in report.by_length for row in _length_rows(length)),
        *_roofline_rows(report.roofline),
        ("load, once, s", f"{base.memory.load_s:.2f}", f"{adapted.memory.load_s:.2f}", ""),
        _row("start to first token, s", base.memory.warm_start_s, adapted.memory.warm_start_s, 1, 2),
        _row("  file not in the cache", base.memory.cold_start_s, adapted.memory.cold_start_s, 1, 2),
        _row("peak memory, MB", base.memory.peak_rss_bytes, adapted.memory.peak_rss_bytes, 1e-6),
        _row("file, MB", base.total_bytes, adapted.total_bytes, 1e-6, 1),
        _row("bits per weight", base.bits_per_weight, adapted.bits_per_weight, 1, 2),
    ]


def _speed_rows(report: LatencyReport) -> Iterator[tuple[str, ...]]:
    """The time to an answer of each question; without questions, the speeds of the random prompt."""
    for question in report.questions:
        yield _paired_row(f"time to an answer, {question.shape} tokens, s", question.answer, 1, 2)
    if not report.questions:
        workload = report.settings
        question_tokens = "/".join(str(tokens) for tokens in dict.fromkeys(report.question_tokens))
        yield _paired_row(f"prefill {workload.prompt_tokens}, tokens/s", report.prefill, 1)
        yield _paired_row(f"first token of {question_tokens}, ms", report.first_token, 1000)
        yield _paired_row(f"decode {workload.decode_tokens}, tokens/s", report.decode, 1)


def _length_rows(length: LengthSpeeds) -> Iterator[tuple[str, ...]]:
    yield _paired_row(f"prefill {length.tokens}, tokens/s", length.prefill, 1)
    yield _paired_row(f"first token after {length.tokens}, ms", length.first_token, 1000)
    yield _paired_row(f"decode after {length.tokens}, tokens/s", length.decode, 1)


def _roofline_rows(roofline: Roofline | None) -> Iterator[tuple[str, ...]]:
    if roofline:
        title = f"decode after {roofline.depth}, % of the memory roofline"
        yield _row(title, roofline.base_fraction, roofline.adapted_fraction, 100)


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


def _caption(report: LatencyReport) -> str:
    roofline = report.roofline
    at_lengths = f" ({LENGTH_ROUNDS} rounds at --lengths)" if report.lengths else ""
    return "\n".join(
        (
            *report.verdict,
            *([describe_bandwidth(roofline, report.settings.threads)] if roofline else []),
            f"medians of {report.rounds} rounds of {2 * ITERATIONS_PER_ROUND} iterations{at_lengths}, "
            f"{report.environment(report.settings.threads)}",
        )
    )
