"""A/A test of the latency benchmark on this machine: what it reports where the true ratio is known.

A model is compared with itself, where intervals should contain 1.00, and with itself slowed down on purpose,
which should be detected. Both comparisons are repeated many times, with the code of `thirteen bench latency`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from thirteen.errors import RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.hashing import file_sha256
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import Interval
from thirteen.stats.paired_ratio import ROUNDS_MIN
from thirteen.bench.harness.environment import BenchReport, report_head, this_commit
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.interleave import ITERATIONS_PER_ROUND, PairedMeasurement, count_iterations
from thirteen.bench.harness.schedule import ProgressCounter
from thirteen.bench.harness.workload import Workload, load_engine
from thirteen.bench.speed.ab_speed import ABSpeeds, compare_speeds
from thirteen.bench.speed.slowed_engine import SlowedEngine

RUNS = 100
SLOWDOWN = 1.05
SLOWDOWN_MAX = 10.0
ROUNDS = 24
PROMPT_TOKENS = 16
DECODE_TOKENS = 8
COVERAGE_MIN = 0.95  # expected share of runs whose interval contains 1.00, model against itself
DETECTION_MIN = 0.9  # expected share of runs that detect the slowed model


@dataclass(frozen=True, slots=True)
class RatioCoverage:
    """One ratio over all runs of a comparison.

    Attributes:
        name: quantity of the ratio.
        containing: runs whose interval contains 1.00.
        slower: runs whose interval says that the other model is slower than the base.
        ratio: median of the estimates.
        half_width: median of the intervals' half widths, as a fraction of the estimate.
        intervals: interval of each run.
    """

    name: str
    containing: int
    slower: int
    ratio: float
    half_width: float
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class AATestReport(BenchReport):
    """Result of an A/A test.

    Attributes:
        commit: git commit of the checkout; see this_commit().
        model: the model file.
        sha256: its hash in hexadecimal.
        settings: work of an iteration.
        rounds: rounds of a comparison.
        runs: repetitions of both comparisons.
        slowdown: factor on the time of each batch of the slowed model.
        itself: each ratio of the model to itself.
        slowed: each ratio of the slowed model to the model.
        verdict: conclusions in words, a line each.
    """

    commit: str | None
    model: str
    sha256: str
    settings: Workload
    rounds: int
    runs: int
    slowdown: float
    itself: tuple[RatioCoverage, ...]
    slowed: tuple[RatioCoverage, ...]
    verdict: tuple[str, ...]


def run_aa_test(  # noqa: PLR0913 - options of a measurement, each with its default
    model: Path,
    *,
    workload: Workload | None = None,
    runs: int = RUNS,
    slowdown: float = SLOWDOWN,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> AATestReport:
    """Compare a model with itself and with itself slowed, one after the other in each run.

    Args:
        model: a GGUF file.
        workload: work of an iteration; by default 16 prompt and 8 decode tokens.
        runs: repetitions of both comparisons.
        slowdown: factor on the time of each batch of the slowed model.
        rounds: rounds of a comparison, at least 8.
        progress: called with iterations done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of range, or an iteration does not fit the model's context.
    """
    check_integer("bench: runs", runs, 1)
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    if not 1 < slowdown <= SLOWDOWN_MAX:
        raise RequestError(f"bench: slowdown must be above 1 and at most {SLOWDOWN_MAX:g}, not {slowdown}")
    read_header(model)
    workload = workload or Workload(PROMPT_TOKENS, DECODE_TOKENS)
    head = report_head()
    advance = ProgressCounter(progress, 2 * count_iterations(2, 1, rounds) * runs)
    makes = (Engine, Engine, partial(SlowedEngine, slowdown=slowdown))
    base, *others = (partial(load_engine, model, None, workload, make=make) for make in makes)
    speeds = [
        [compare_speeds((base, other), workload, rounds, advance) for other in others] for _ in range(runs)
    ]
    itself, slowed = (_coverages(runs_of_other) for runs_of_other in zip(*speeds, strict=True))
    return AATestReport(
        *head,
        commit=this_commit(),
        model=str(model),
        sha256=file_sha256(model),
        settings=workload,
        rounds=rounds,
        runs=runs,
        slowdown=slowdown,
        itself=itself,
        slowed=slowed,
        verdict=tuple(_verdict(itself, slowed, runs)),
    )


def _coverages(runs: Sequence[ABSpeeds]) -> tuple[RatioCoverage, ...]:
    by_name = zip(*(speeds.by_name for speeds in runs), strict=True)  # the same ratio of every run
    return tuple(_coverage(named[0][0], [measurement for _, measurement in named]) for named in by_name)


def _coverage(name: str, measurements: Sequence[PairedMeasurement]) -> RatioCoverage:
    intervals = tuple(measurement.ratio for measurement in measurements)
    return RatioCoverage(
        name=name,
        containing=sum(not ratio.excludes_one for ratio in intervals),
        slower=sum(map(_is_slower, measurements)),
        ratio=float(np.median([ratio.estimate for ratio in intervals])),
        half_width=float(np.median([ratio.half_width for ratio in intervals])),
        intervals=intervals,
    )


def _is_slower(measurement: PairedMeasurement) -> bool:
    ratio = measurement.ratio
    return ratio.high < 1 if measurement.higher_is_better else ratio.low > 1


def _verdict(itself: Sequence[RatioCoverage], slowed: Sequence[RatioCoverage], runs: int) -> Iterator[str]:
    fewest = min(coverage.containing for coverage in itself)
    yield _check("base vs itself: intervals that contain 1.00, at least", fewest, COVERAGE_MIN, runs)
    for coverage in slowed:
        yield _check(f"slowed {coverage.name}: detected", coverage.slower, DETECTION_MIN, runs)


def _check(what: str, count: int, share_min: float, runs: int) -> str:
    word = "ok" if count >= share_min * runs else "too few"
    return f"{what} in {count} of {runs} runs: {word} ({100 * share_min:.0f} % expected)"


def aa_test_table(report: AATestReport) -> Table:
    """Tabulate each ratio of both comparisons, with the verdict and the environment below."""
    title = f"{Path(report.model).name} vs itself, {report.runs} runs"
    columns = ("other / base", "median ratio", "interval", "contains 1.00", "slower")
    table = report_table(title, _caption(report), *columns)
    for suffix, coverages in (("", report.itself), (f", slowed {report.slowdown:g} times", report.slowed)):
        for coverage in coverages:
            table.add_row(
                f"{coverage.name}{suffix}",
                f"{coverage.ratio:.3f}",
                f"±{100 * coverage.half_width:.1f} %",
                str(coverage.containing),
                str(coverage.slower),
            )
    return table


def _caption(report: AATestReport) -> str:
    workload = report.settings
    return "\n".join(
        (
            *report.verdict,
            f"runs of {report.rounds} rounds of {2 * ITERATIONS_PER_ROUND} iterations, "
            f"{workload.prompt_tokens} prompt and {workload.decode_tokens} decode tokens in each, "
            f"{report.environment(workload.threads)}",
        )
    )
