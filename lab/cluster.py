"""Throughput of a batch of questions on one local engine and on the workers of a Ray cluster.

python lab/cluster.py MODEL.gguf [--ray ADDRESS] [--ray-insecure] [--workers 1 2] [--questions 200]
    [--max-tokens 64] [--threads 1] [--rounds 3] [--json]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table
from thirteen.bench.harness.environment import BenchReport, report_head
from thirteen.bench.harness.format import report_table
from thirteen.bench.harness.schedule import ProgressCounter, alternating_order
from thirteen.cli.console import progress_bar, show_report
from thirteen.cluster.ray_batch import RayWorkers
from thirteen.files.progress import Progress, no_progress
from thirteen.runtime.batch.reproducible_batches import (
    BatchExecutor,
    BatchJob,
    GenerationSettings,
    split_into_batches,
)
from thirteen.runtime.validation import check_integer
from thirteen.stats.interval import Interval
from thirteen.stats.paired_ratio import paired_ratio

ROUNDS = 3
QUESTIONS = 200
MAX_TOKENS = 64


@dataclass(frozen=True, slots=True)
class RunMode:
    """One way to run the batch.

    Attributes:
        name: name in words.
        workers: workers of the cluster; None for the local engine.
        seconds: time of each round from the start to the last answer, including loading the model, and
            starting the cluster if it is started for the run.
        questions_an_hour: median over the rounds.
        ratio: questions per hour over those of the local engine, paired by round.
    """

    name: str
    workers: int | None
    seconds: tuple[float, ...]
    questions_an_hour: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class RayScalingReport(BenchReport):
    """Comparison of a local engine with a cluster.

    Attributes:
        model: the model file.
        questions: questions of each round.
        max_tokens: maximum tokens per answer.
        threads: threads of each engine.
        ways: the local engine, then each number of workers.
        same: whether all modes gave the same answers in all rounds.
    """

    model: str
    questions: int
    max_tokens: int
    threads: int
    ways: tuple[RunMode, ...]
    same: bool


def run_ray_scaling(  # noqa: PLR0913 - options of a measurement, each with its default
    model: Path,
    address: str,
    workers: Sequence[int],
    *,
    insecure: bool = False,
    questions: int = QUESTIONS,
    max_tokens: int = MAX_TOKENS,
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> RayScalingReport:
    """Answer the same questions on a local engine and on a cluster, round by round.

    Args:
        model: a GGUF file.
        address: address of the cluster; see ray_session().
        workers: numbers of workers to compare.
        insecure: whether the cluster may have no token authentication.
        questions: questions of each round.
        max_tokens: maximum tokens per answer.
        threads: threads of each engine.
        rounds: number of rounds; each runs every mode once.
        progress: called with questions answered and in all.

    Raises:
        RequestError: a number is out of range, or the cluster cannot be reached.
        ThirteenError: the model cannot be loaded.
    """
    numbers = {"questions": questions, "threads": threads, "rounds": rounds}
    for name, value in [*numbers.items(), *(("workers", count) for count in workers)]:
        check_integer(f"bench: {name}", value, 1)
    job = BatchJob(model, None, GenerationSettings(max_tokens=max_tokens), threads)
    clusters = [RayWorkers(address, count, insecure) for count in workers]
    executors: list[BatchExecutor] = [BatchJob.run, *(cluster.run for cluster in clusters)]
    advance = ProgressCounter(progress, len(executors) * questions * rounds)
    head = report_head()
    seconds, answers = np.empty((rounds, len(executors))), set()
    for number in range(rounds):
        for mode in alternating_order(len(executors), number):
            seconds[number, mode], texts = _run_batch(executors[mode], job, questions, advance)
            answers.add(texts)
    modes = tuple(
        RunMode(
            name="one local engine" if count is None else f"{count} worker{'s' * (count > 1)}",
            workers=count,
            seconds=tuple(took.tolist()),
            questions_an_hour=float(3600 * questions / np.median(took)),
            ratio=paired_ratio(took, seconds[:, 0]),
        )
        for count, took in zip((None, *workers), seconds.T, strict=True)
    )
    return RayScalingReport(*head, str(model), questions, max_tokens, threads, modes, len(answers) == 1)


def _run_batch(
    execute: BatchExecutor, job: BatchJob, questions: int, advance: ProgressCounter
) -> tuple[float, tuple[str, ...]]:
    """Seconds until all questions are answered, and the answers."""
    texts = [f"Tom has {n + 2} boxes of {n % 9 + 3} eggs. How many eggs are that?" for n in range(questions)]
    start, answers = perf_counter(), [""] * questions
    for result in execute(job, split_into_batches(dict(enumerate(texts)), job.settings.batch_size)):
        answers[result.number] = result.answer.text if result.answer else str(result.error)
        advance()
    return perf_counter() - start, tuple(answers)


def ray_scaling_table(report: RayScalingReport) -> Table:
    """Tabulate the modes."""
    title = f"{report.questions} questions, at most {report.max_tokens} tokens each"
    caption = (
        f"{Path(report.model).name}, {len(report.ways[0].seconds)} rounds, "
        f"the answers are {'the same' if report.same else 'NOT the same'}, per engine "
        f"{report.environment(report.threads)}"
    )
    table = report_table(title, caption, "mode", "seconds", "questions per hour", "/ local engine")
    for mode in report.ways:
        seconds = f"{np.median(mode.seconds):.1f}"
        table.add_row(mode.name, seconds, f"{mode.questions_an_hour:.0f}", mode.ratio.text(3))
    return table


def main() -> None:
    """Print the throughput of each way to run the batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ray", default="local")
    parser.add_argument("--ray-insecure", action="store_true")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with progress_bar("cluster") as progress:
        report = run_ray_scaling(
            given.model,
            given.ray,
            given.workers,
            insecure=given.ray_insecure,
            questions=given.questions,
            max_tokens=given.max_tokens,
            threads=given.threads,
            rounds=given.rounds,
            progress=progress,
        )
    show_report(given.json, report, ray_scaling_table)


if __name__ == "__main__":
    main()
