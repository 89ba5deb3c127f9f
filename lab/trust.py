"""Whether `thirteen bench latency` can be trusted on this machine: its ratios where the true ones are known.

python lab/trust.py MODEL.gguf [--runs 100] [--rounds 24] [--slowdown 1.05] [--threads N] [--json]

A model is compared with itself, where intervals should contain 1.00, and with itself slowed down on purpose,
which should be detected.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.table import Table
from thirteen.bench.harness.environment import BenchReport, report_head
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.interleave import (
    ITERATIONS_PER_ROUND,
    SECONDS,
    EngineLoader,
    PairedMeasurement,
    count_iterations,
    duration,
    interleave,
    throughput,
)
from thirteen.bench.harness.iteration import random_prompt, time_prefill_and_decode
from thirteen.bench.harness.schedule import ProgressCounter
from thirteen.bench.harness.workload import Workload, load_engine
from thirteen.cli.console import progress_bar, show_report
from thirteen.errors import RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.hashing import file_sha256
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.engine import engine as engine_module
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.threads import default_threads
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import FloatArray, Interval
from thirteen.stats.paired_ratio import ROUNDS_MIN


@dataclass(frozen=True, slots=True)
class Iteration:
    """Wall times as a caller of the engine sees them.

    Attributes:
        prefill_s: time from the submission of a prompt in tokens to the first token: queueing, prefill and
            sampling.
        decode_s: time from the first token to the last: each is decoded, sampled and delivered.
        first_token_s: time from a question in text to the first text of its answer: chat template, tokenizer,
            prefill and one token.
        question_tokens: tokens of that question, chat template included.
    """

    prefill_s: float
    decode_s: float
    first_token_s: float
    question_tokens: int


def run_iteration(engine: Engine, number: int, workload: Workload) -> Iteration:
    """Time prefill and decode of a random prompt, then the first token of a question.

    Afterwards the engine is idle again, with an empty KV cache. Prompt and question depend on `number`, so no
    cache of an earlier iteration can answer them, and are the same for all engines of one vocabulary.
    """
    prompt = random_prompt(engine.model, number, workload.prompt_tokens)
    prefill_s, decode_s = time_prefill_and_decode(engine, prompt, workload.decode_tokens)
    first_token_s, question_tokens = _time_first_token(engine, f"What is {100 + number} times 13?")
    return Iteration(prefill_s, decode_s, first_token_s, question_tokens)


def _time_first_token(engine: Engine, question: str) -> tuple[float, int]:
    """Seconds to the first text of the answer, and the tokens of the question."""
    start = perf_counter()
    (piece,) = engine.stream(question, max_tokens=1)
    took_s = perf_counter() - start
    assert piece.answer is not None, "one token is the whole answer"
    return took_s, piece.answer.usage.prompt_tokens


@dataclass(frozen=True, slots=True)
class ABSpeeds:
    """Speeds of base and adapted model, measured in alternation.

    Attributes:
        prefill: prompt tokens per second; see Iteration.prefill_s.
        first_token: seconds from a question in text to the first text; see Iteration.first_token_s.
        decode: tokens per second after the first; see Iteration.decode_s.
        question_tokens: tokens of the first iteration's question, for base and adapted.
    """

    prefill: PairedMeasurement
    first_token: PairedMeasurement
    decode: PairedMeasurement
    question_tokens: tuple[int, int]

    @property
    def by_name(self) -> Iterator[tuple[str, PairedMeasurement]]:
        """Measurements with their names in words, decode first."""
        yield "decode", self.decode
        yield "first token", self.first_token
        yield "prefill", self.prefill


def compare_speeds(
    loaders: Sequence[EngineLoader], workload: Workload, rounds: int, advance: Callable[[], None]
) -> ABSpeeds:
    """Measure base and adapted model in rounds; see interleave()."""
    (results,) = interleave(loaders, [partial(run_iteration, workload=workload)], rounds, advance)
    return ABSpeeds(
        prefill=throughput(workload.prompt_tokens, _seconds(results, "prefill_s")),
        first_token=duration(_seconds(results, "first_token_s")),
        decode=throughput(workload.decode_tokens, _seconds(results, "decode_s")),
        question_tokens=(results[0][0].question_tokens, results[1][0].question_tokens),
    )


def _seconds(results: Sequence[Sequence[Iteration]], name: str) -> FloatArray:
    return np.array(
        [[getattr(iteration, name) for iteration in model] for model in results]
    )  # (2, iterations)


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


class SlowedEngine(Engine):
    """An engine that computes in a SlowedContext."""

    def __init__(self, path: str | Path, *, slowdown: float, **options: Any) -> None:
        """Load a model.

        Args:
            path: a GGUF file.
            slowdown: factor on the time of each batch, at least 1.
            options: options of Engine.

        Raises:
            ThirteenError: Engine() raises it.
        """

        def slowed_context(model: Model, params: ContextParams) -> Context:
            context = SlowedContext(model, params)
            context.slowdown = slowdown
            return context

        with patch.object(engine_module, "Context", slowed_context):
            super().__init__(path, **options)


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
    return ratio.low > 1 if measurement.unit == SECONDS else ratio.high < 1


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
        report = run_aa_test(
            given.model,
            workload=Workload(given.prompt_tokens, given.decode_tokens, given.threads),
            runs=given.runs,
            slowdown=given.slowdown,
            rounds=given.rounds,
            progress=progress,
        )
    show_report(given.json, report, aa_test_table)


if __name__ == "__main__":
    main()
