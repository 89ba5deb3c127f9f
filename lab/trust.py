"""Whether `thirteen bench latency` can be trusted on this machine: its ratios where the true ones are known.

python lab/trust.py MODEL.gguf [--runs 100] [--rounds 24] [--slowdown 1.05] [--threads N] [--json]

A model is compared with itself, where intervals should contain 1.00, and with itself slowed down on purpose,
which should be detected.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from thirteen.bench.environment import BenchReport, ModelSource, Table, report_head
from thirteen.bench.latency import time_in_turns
from thirteen.bench.rounds import (
    ITERATIONS_PER_ROUND,
    Measurement,
    ProgressCounter,
    count_iterations,
    summarize,
)
from thirteen.bench.workload import Workload, load_engine
from thirteen.cli.console import progress_bar, show
from thirteen.files.progress import Progress
from thirteen.files.received_files import file_sha256
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.machine import default_threads
from thirteen.stats.intervals import Interval


class SlowedContext(Context):
    """A context in which each batch, with the engine's work before it, takes `slowdown` times as long."""

    slowdown = 1.0
    _last_end: float | None = None  # of the last batch, while its sequence continues

    def decode(self, spans: Sequence[Span]) -> list[int]:
        """Compute the batch, then busy-wait: a sleep is not exact enough for times this short."""
        start = self._last_end or perf_counter()
        rows = super().decode(spans)
        until = start + self.slowdown * (perf_counter() - start)
        while (now := perf_counter()) < until:
            pass
        self._last_end = now
        return rows

    def clear(self, slot: int, start: int = 0) -> None:
        """Clear the slot; the time until the next batch is no part of the engine's work."""
        super().clear(slot, start)
        self._last_end = None


def slowed_engine(slowdown: float, *files: Any, **options: Any) -> Engine:
    """An engine that computes in a SlowedContext."""

    def slowed_context(model: Model, params: Settings) -> Context:
        context = SlowedContext(model, params)
        context.slowdown = slowdown
        return context

    with patch.object(engine_module, "Context", slowed_context):
        return Engine(*files, **options)


RUNS = 100
SLOWDOWN = 1.05
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
        intervals: interval of each run.
    """

    name: str
    containing: int
    slower: int
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AATestReport(BenchReport):
    """Ratios of a model to itself, and of the slowed model to the model."""

    model: str
    sha256: str
    settings: Workload
    rounds: int
    runs: int
    slowdown: float
    itself: tuple[RatioCoverage, ...]
    slowed: tuple[RatioCoverage, ...]

    def table(self) -> Table:
        """Each ratio of both comparisons."""
        work = self.settings
        rows = (
            (
                f"{coverage.name}{suffix}",
                f"{np.median([ratio.estimate for ratio in coverage.intervals]):.3f}",
                f"±{100 * np.median([ratio.half_width for ratio in coverage.intervals]):.1f} %",
                str(coverage.containing),
                str(coverage.slower),
            )
            for suffix, coverages in (("", self.itself), (f", slowed {self.slowdown:g} times", self.slowed))
            for coverage in coverages
        )
        notes = (
            f"runs of {self.rounds} rounds of {2 * ITERATIONS_PER_ROUND} iterations, "
            f"{work.prompt_tokens} prompt and {work.decode_tokens} decode tokens in each, "
            f"{self.environment(work.threads)}",
        )
        header = ("other / base", "median ratio", "interval", "contains 1.00", "slower")
        return Table(f"{Path(self.model).name} vs itself, {self.runs} runs", header, tuple(rows), notes)


def run_aa_test(given: argparse.Namespace, progress: Progress) -> AATestReport:
    """Compare a model with itself and with itself slowed, one after the other in each run."""
    head, runs, rounds = report_head(), given.runs, given.rounds
    workload = Workload(given.prompt_tokens, given.decode_tokens, given.threads)
    advance = ProgressCounter(progress, 2 * count_iterations(2, rounds) * runs)
    makes = (Engine, Engine, partial(slowed_engine, given.slowdown))
    base, *others = (partial(load_engine, ModelSource(given.model), workload, make) for make in makes)

    def measure(other: Callable[[], Engine]) -> dict[str, Measurement]:
        first_s, last_s = time_in_turns((base, other), workload, rounds, advance)
        return {
            "decode": summarize(last_s - first_s, workload.decode_tokens),
            "prefill": summarize(first_s, workload.prompt_tokens),
            "answer": summarize(last_s),
        }

    measured = [[measure(other) for other in others] for _ in range(runs)]
    itself, slowed = (
        tuple(_coverage(name, [run[name] for run in of_other]) for name in of_other[0])
        for of_other in zip(*measured, strict=True)
    )
    fewest = min(coverage.containing for coverage in itself)
    verdict = [_check("base vs itself: intervals that contain 1.00, at least", fewest, COVERAGE_MIN, runs)]
    for coverage in slowed:
        verdict.append(_check(f"slowed {coverage.name}: detected", coverage.slower, DETECTION_MIN, runs))
    return AATestReport(
        **head,
        verdict=tuple(verdict),
        model=str(given.model),
        sha256=file_sha256(given.model),
        settings=workload,
        rounds=rounds,
        runs=runs,
        slowdown=given.slowdown,
        itself=itself,
        slowed=slowed,
    )


def _coverage(name: str, measurements: Sequence[Measurement]) -> RatioCoverage:
    intervals = tuple(measurement.ratio for measurement in measurements if measurement.ratio)
    slower = sum(ratio.low > 1 if name == "answer" else ratio.high < 1 for ratio in intervals)
    return RatioCoverage(name, sum(not ratio.excludes_one for ratio in intervals), slower, intervals)


def _check(what: str, count: int, share_min: float, runs: int) -> str:
    word = "ok" if count >= share_min * runs else "too few"
    return f"{what} in {count} of {runs} runs: {word} ({100 * share_min:.0f} % expected)"


def main() -> None:
    """Print both comparisons of a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--slowdown", type=float, default=SLOWDOWN)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT_TOKENS)
    parser.add_argument("--decode-tokens", type=int, default=DECODE_TOKENS)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("trust") as progress:
        report = run_aa_test(given, progress)
    show(given.json, report, report)


if __name__ == "__main__":
    main()
