"""Whether the benchmark can be trusted on this machine: what it says of two sides whose ratio is known.

A base is compared with itself, where every interval should contain 1.00, and with itself made slower on
purpose, which should be found. Both are done many times, by the code of `thirteen bench latency`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from ...errors import RequestError
from ...files.gguf_header import read_header
from ...files.hashing import file_sha256
from ...files.progress import Progress, no_progress
from ...runtime.engine.engine import Engine
from ...runtime.request import check_integer
from ...runtime.threads import physical_cores
from ...stats.interval import Interval
from ...stats.paired_ratio import ROUNDS_MIN
from ..harness.environment import Build, Machine, this_build, this_commit, this_machine
from ..harness.interleave import ITERATIONS, PairedMeasurement, count_iterations
from ..harness.schedule import ProgressCounter
from ..harness.workload import Workload, load_engine
from .ab_speed import ABSpeeds, compare_speeds
from .slowed_engine import SlowedEngine

RUNS = 100
SLOWDOWN = 1.05
SLOWDOWN_MAX = 10.0
ROUNDS = 24
PROMPT_TOKENS = 16
DECODE_TOKENS = 8
CONTAINING_MIN = 0.95  # of the comparisons with itself: their intervals contain 1.00
FOUND_MIN = 0.9  # of those with the slowed one: their intervals say that it is slower


@dataclass(frozen=True, slots=True)
class RatioCoverage:
    """One ratio, over all runs of a comparison.

    Attributes:
        name: of what the ratio is.
        containing: runs whose interval contains 1.00.
        slower: runs whose interval says that the other side is slower than the base.
        ratio: the median of the estimates.
        half_width: the median of the intervals' reach to each side, as a part of the estimate.
        intervals: of every run.
    """

    name: str
    containing: int
    slower: int
    ratio: float
    half_width: float
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class AATestReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        commit: of the checkout that ran; see machine.this_commit().
        model: the file.
        sha256: its hash, in hexadecimal.
        settings: the work of a turn.
        rounds: of a run.
        runs: each of them made both comparisons.
        slowdown: how many times as long each batch of the slowed side took.
        itself: the base beside itself, a tally for each ratio.
        slowed: the base beside itself slowed, likewise.
        verdict: what it comes to in words, a line each.
    """

    date: str
    machine: Machine
    build: Build
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


def run_aa_test(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    model: Path,
    *,
    runs: int = RUNS,
    slowdown: float = SLOWDOWN,
    rounds: int = ROUNDS,
    prompt_tokens: int = PROMPT_TOKENS,
    decode_tokens: int = DECODE_TOKENS,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> AATestReport:
    """Compare a base with itself, and with itself slowed, one after the other in each run.

    Args:
        model: a GGUF file.
        runs: each of them makes both comparisons.
        slowdown: how many times as long each batch of the slowed side takes.
        rounds: of a run; in each, both sides of a comparison take two turns.
        prompt_tokens: tokens read in each turn.
        decode_tokens: tokens written after the first.
        threads: that compute; by default one for each physical core.
        progress: called with the turns that are done and how many there are in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of bounds, or a turn does not fit the model's context.
    """
    check_integer("bench: runs", runs, 1)
    check_integer("bench: rounds", rounds, ROUNDS_MIN)
    if not 1 < slowdown <= SLOWDOWN_MAX:
        raise RequestError(f"bench: slowdown must be above 1 and at most {SLOWDOWN_MAX:g}, not {slowdown}")
    read_header(model)
    threads = physical_cores() if threads is None else threads
    settings = Workload(prompt_tokens, decode_tokens, threads)
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    tick = ProgressCounter(progress, 2 * count_iterations(2, 1, rounds) * runs)
    makes = (Engine, Engine, partial(SlowedEngine, slowdown=slowdown))  # the base, its equal, and it slowed
    base, *others = (partial(load_engine, model, None, settings, make=make) for make in makes)
    measured = [
        [compare_speeds(base, other, settings, rounds, tick) for other in others] for _ in range(runs)
    ]
    of_equal, of_slowed = (_tallies(speeds) for speeds in zip(*measured, strict=True))
    return AATestReport(
        date=date,
        machine=machine,
        build=this_build(),
        commit=this_commit(),
        model=str(model),
        sha256=file_sha256(model),
        settings=settings,
        rounds=rounds,
        runs=runs,
        slowdown=slowdown,
        itself=of_equal,
        slowed=of_slowed,
        verdict=tuple(_verdict(of_equal, of_slowed, runs)),
    )


def _tallies(runs: Sequence[ABSpeeds]) -> tuple[RatioCoverage, ...]:
    by_name = zip(*(speeds.named for speeds in runs), strict=True)  # the same ratio of every run
    return tuple(_tally(of[0][0], [measure for _, measure in of]) for of in by_name)


def _tally(name: str, measures: Sequence[PairedMeasurement]) -> RatioCoverage:
    intervals = tuple(measure.ratio for measure in measures)
    return RatioCoverage(
        name=name,
        containing=sum(not ratio.excludes_one for ratio in intervals),
        slower=sum(map(_says_slower, measures)),
        ratio=float(np.median([ratio.estimate for ratio in intervals])),
        half_width=float(np.median([ratio.half_width for ratio in intervals])),
        intervals=intervals,
    )


def _says_slower(measure: PairedMeasurement) -> bool:
    ratio = measure.ratio
    return ratio.high < 1 if measure.more_is_better else ratio.low > 1


def _verdict(itself: Sequence[RatioCoverage], slowed: Sequence[RatioCoverage], runs: int) -> Iterator[str]:
    worst = min(tally.containing for tally in itself)
    yield _judged(
        f"base beside itself: intervals contain 1.00 in at least {worst} of {runs} runs",
        worst,
        CONTAINING_MIN,
        runs,
    )
    for tally in slowed:
        yield _judged(
            f"{tally.name} made slower: found in {tally.slower} of {runs} runs", tally.slower, FOUND_MIN, runs
        )


def _judged(what: str, count: int, least: float, runs: int) -> str:
    word = "as it should be" if count >= least * runs else "too few"
    return f"{what}: {word} (from {least:.0%} on)".replace("%", " %")


def aa_test_table(report: AATestReport) -> Table:
    """A row for each ratio of both comparisons; the verdict and the circumstances below."""
    out = Table(
        title=Text(f"{Path(report.model).name} beside itself, {report.runs} runs"),
        caption=Text(_caption(report)),
        caption_justify="left",
        min_width=76,
    )
    out.add_column("other / base")
    for title in ("median ratio", "interval", "contains 1.00", "says slower"):
        out.add_column(title, justify="right")
    slowed = f", each batch {report.slowdown:g} times as long"
    for suffix, tallies in (("", report.itself), (slowed, report.slowed)):
        for tally in tallies:
            out.add_row(
                f"{tally.name}{suffix}",
                f"{tally.ratio:.3f}",
                f"±{100 * tally.half_width:.1f} %",
                str(tally.containing),
                str(tally.slower),
            )
    return out


def _caption(report: AATestReport) -> str:
    machine, settings = report.machine, report.settings
    return "\n".join(
        (
            *report.verdict,
            f"runs of {report.rounds} rounds of {2 * ITERATIONS} turns, {settings.prompt_tokens} tokens of "
            f"prompt and {settings.decode_tokens} decoded in each, threads: {settings.threads}, "
            f"cores: {machine.cores}, load: {machine.load_average}",
            f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {report.build.llama_cpp_python}",
        )
    )
