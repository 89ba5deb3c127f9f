"""Base against adapted model in speed, memory and size.

A shared or warm machine drifts by more than the difference in question, so single figures say little. The two
models are measured in alternation, A B B A A B B A …, so that drift affects both alike and cancels in their
ratio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.table import Table

from ...files.gguf_header import read_header
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
from .ab_speed import ABSpeeds, compare_speeds
from .length_sweep import LENGTH_ROUNDS, LengthSpeeds, check_lengths, longest_text, measure_lengths

ROUNDS = 20


@dataclass(frozen=True, slots=True)
class LatencyReport(BenchReport):
    """Comparison of a base and an adapted model.

    Attributes:
        commit: git commit of the checkout; see this_commit().
        settings: work of an iteration.
        rounds: number of rounds, of ITERATIONS_PER_ROUND iterations of each model.
        base: the base model's file and memory.
        adapted: the adapted model's.
        question_tokens: see ABSpeeds, also for the next three.
        prefill: prompt tokens per second.
        first_token: seconds to the first text.
        decode: tokens per second.
        lengths: speeds at prompts of several lengths.
        noisy: whether the run was too noisy for a conclusion on the decode speed.
        more_rounds: about how many more rounds a conclusion needs; 0 if none.
        verdict: conclusions in words, a line each. Each interval stands alone: with equal models, up to three
            runs in a hundred show a difference in one of the three quantities.
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


def run_latency(  # noqa: PLR0913 - options of a measurement, each with its default
    base: Path,
    adapted: Path,
    *,
    workload: Workload | None = None,
    adapter: Path | None = None,
    rounds: int = ROUNDS,
    lengths: Sequence[int] = (),
    progress: Progress = no_progress,
) -> LatencyReport:
    """Measure two models in alternation.

    Memory and load time come first, each model in a separate process. Then follow the rounds, each with a
    warm-up iteration of both models.

    Args:
        base: a GGUF file.
        adapted: another one, or the same with `adapter`.
        workload: work of an iteration.
        adapter: a LoRA in a GGUF file, applied at run time to the adapted model.
        rounds: number of rounds, at least 8.
        lengths: prompt lengths at which prefill and decode are measured as well.
        progress: called with iterations done and in all, plus one for each model's memory.

    Raises:
        ModelFileError: a file is not a GGUF, is damaged, or cannot be run by this build.
        AdapterError: the adapter does not fit the adapted model.
        RequestError: a number is out of range, or an iteration does not fit a model's context.
    """
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    lengths, workload = check_lengths(lengths), workload or Workload()
    for path in filter(None, (base, adapted, adapter)):
        read_header(path)  # a bad file fails before the first measurement
    head = report_head()
    iterations = count_iterations(2, 1, rounds) + count_iterations(2, len(lengths), LENGTH_ROUNDS)
    advance = ProgressCounter(progress, 2 + iterations)
    files, models = ((base, None), (adapted, adapter)), []
    for file in files:
        models.append(measure_model(*file, workload))
        advance()
    workload = replace(workload, longest=longest_text(lengths))
    loaders = [partial(load_engine, *file, workload) for file in files]
    speeds = compare_speeds(loaders, workload, rounds, advance)
    by_length = measure_lengths(loaders, lengths, advance)
    return _report(head, workload, rounds, models, speeds, by_length)


def _report(  # noqa: PLR0913, PLR0917 - the parts of the report
    head: ReportHead,
    workload: Workload,
    rounds: int,
    models: Sequence[MeasuredModel],
    speeds: ABSpeeds,
    lengths: tuple[LengthSpeeds, ...],
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
        verdict=tuple(_verdict(speeds, rounds)),
    )


def _verdict(speeds: ABSpeeds, rounds: int) -> Iterator[str]:
    for name, measurement in speeds.by_name:
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
    workload, base, adapted = report.settings, report.base, report.adapted
    question_tokens = "/".join(str(tokens) for tokens in dict.fromkeys(report.question_tokens))
    return [
        _paired_row(f"prefill {workload.prompt_tokens}, tokens/s", report.prefill, 1),
        _paired_row(f"first token of {question_tokens}, ms", report.first_token, 1000),
        _paired_row(f"decode {workload.decode_tokens}, tokens/s", report.decode, 1),
        *(row for length in report.lengths for row in _length_rows(length)),
        ("load, once, s", f"{base.memory.load_s:.2f}", f"{adapted.memory.load_s:.2f}", ""),
        _row("start to first token, s", base.memory.warm_start_s, adapted.memory.warm_start_s, 1, 2),
        _row("  file not in the cache", base.memory.cold_start_s, adapted.memory.cold_start_s, 1, 2),
        _row("peak memory, MB", base.memory.peak_rss_bytes, adapted.memory.peak_rss_bytes, 1e-6),
        _row("file, MB", base.total_bytes, adapted.total_bytes, 1e-6, 1),
        _row("bits per weight", base.bits_per_weight, adapted.bits_per_weight, 1, 2),
    ]


def _length_rows(length: LengthSpeeds) -> Iterator[tuple[str, ...]]:
    yield _paired_row(f"prefill {length.tokens}, tokens/s", length.prefill, 1)
    yield _paired_row(f"decode after {length.tokens}, tokens/s", length.decode, 1)


def _paired_row(title: str, measurement: PairedMeasurement, scale: float) -> tuple[str, ...]:
    medians = (f"{scale * median:.1f}" for median in (measurement.base_median, measurement.adapted_median))
    return title, *medians, measurement.ratio.text(3)


def _row(
    title: str, base: float | None, adapted: float | None, scale: float, digits: int = 0
) -> tuple[str, ...]:
    if base is None or adapted is None:
        return title, NOT_AVAILABLE, NOT_AVAILABLE, ""
    return title, f"{scale * base:.{digits}f}", f"{scale * adapted:.{digits}f}", f"{adapted / base:.3f}"


def _caption(report: LatencyReport) -> str:
    return "\n".join(
        (
            *report.verdict,
            f"medians of {report.rounds} rounds of {2 * ITERATIONS_PER_ROUND} iterations, "
            f"{report.environment(report.settings.threads)}",
        )
    )
