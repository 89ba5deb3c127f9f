"""A batch of questions by one engine here, and by the workers of a Ray cluster, in turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table
from rich.text import Text

from ...files.progress import Progress, no_progress
from ...runtime.batch.reproducible_batches import (
    AnswerBatches,
    BatchJob,
    GenerationSettings,
    split_into_batches,
)
from ...runtime.cluster.ray_batch import RayWorkers
from ...runtime.request import check_integer
from ...stats.interval import Interval
from ...stats.paired_ratio import paired_ratio
from ..harness.environment import Build, Machine, this_build, this_machine
from ..harness.schedule import ProgressCounter, alternating_order

ROUNDS = 3
QUESTIONS = 200
MAX_TOKENS = 64
_HERE = "here, one engine"


@dataclass(frozen=True, slots=True)
class RunMode:
    """One way of having the questions answered.

    Attributes:
        name: in words.
        workers: of the cluster; None is here.
        seconds: of each round, from the start to the last answer, so with loading, and with the cluster's
            start if it is begun for it.
        questions_an_hour: the median.
        ratio: questions an hour beside one engine here, paired by round.
    """

    name: str
    workers: int | None
    seconds: tuple[float, ...]
    questions_an_hour: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class RayScalingReport:
    """What was measured; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where the command ran.
        build: with which versions.
        model: the file.
        questions: of each round.
        max_tokens: of an answer.
        threads: of each engine.
        ways: one engine here, and so many workers.
        same: whether all ways gave the same answers in all rounds.
    """

    date: str
    machine: Machine
    build: Build
    model: str
    questions: int
    max_tokens: int
    threads: int
    ways: tuple[RunMode, ...]
    same: bool


def run_ray_scaling(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    model: Path,
    address: str,
    workers: Sequence[int],
    *,
    questions: int = QUESTIONS,
    max_tokens: int = MAX_TOKENS,
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> RayScalingReport:
    """Have the same questions answered here and by the cluster, round by round.

    Args:
        model: a GGUF file.
        address: of the cluster; see cluster.connected().
        workers: how many, one way for each number.
        questions: of each round.
        max_tokens: of an answer.
        threads: of each engine.
        rounds: in each, every way has a turn.
        progress: called with the questions that are answered and how many there are in all.

    Raises:
        RequestError: a number is out of bounds, or the cluster cannot be reached.
        ThirteenError: whatever is wrong with the model.
    """
    numbers = {"questions": questions, "threads": threads, "rounds": rounds}
    for name, value in [*numbers.items(), *(("workers", count) for count in workers)]:
        check_integer(f"bench: {name}", value, 1)
    job = BatchJob(model, None, GenerationSettings(max_tokens=max_tokens), threads)
    asks: list[AnswerBatches] = [BatchJob.ask, *(RayWorkers(address, count).ask for count in workers)]
    tick = ProgressCounter(progress, len(asks) * questions * rounds)
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    seconds: list[list[float]] = [[] for _ in asks]
    said = set()
    for number in range(rounds):
        for way in alternating_order(len(asks), number):
            took, texts = _turn(asks[way], job, questions, tick)
            seconds[way].append(took)
            said.add(texts)
    names = [(_HERE, None), *((f"{n} worker{'s' * (n > 1)}", n) for n in workers)]
    return RayScalingReport(
        date=date,
        machine=machine,
        build=this_build(),
        model=str(model),
        questions=questions,
        max_tokens=max_tokens,
        threads=threads,
        ways=tuple(
            RunMode(
                name=name,
                workers=count,
                seconds=tuple(took),
                questions_an_hour=float(3600 * questions / np.median(took)),
                ratio=paired_ratio(np.array(took), np.array(seconds[0])),
            )
            for (name, count), took in zip(names, seconds, strict=True)
        ),
        same=len(said) == 1,
    )


def _turn(
    ask: AnswerBatches, job: BatchJob, questions: int, tick: ProgressCounter
) -> tuple[float, tuple[str, ...]]:
    """Seconds until all questions were answered, and what was said."""
    texts = [f"Tom has {n + 2} boxes of {n % 9 + 3} eggs. How many eggs are that?" for n in range(questions)]
    began, said = perf_counter(), [""] * questions
    for asked in ask(job, split_into_batches(dict(enumerate(texts)), job.terms.wave)):
        said[asked.number] = asked.taken.text if asked.taken else str(asked.error)
        tick()
    return perf_counter() - began, tuple(said)


def ray_scaling_table(report: RayScalingReport) -> Table:
    """A row for each way."""
    out = Table(
        title=Text(f"{report.questions} questions, at most {report.max_tokens} tokens each"),
        caption=Text(
            f"{Path(report.model).name}, {len(report.ways[0].seconds)} rounds, threads of an engine: "
            f"{report.threads}, the answers are {'the same' if report.same else 'NOT the same'}\n"
            f"{report.machine.cpu}, cores: {report.machine.cores}, "
            f"llama-cpp-python {report.build.llama_cpp_python}"
        ),
        caption_justify="left",
    )
    out.add_column("by")
    for title in ("seconds", "questions an hour", "beside here"):
        out.add_column(title, justify="right")
    for way in report.ways:
        seconds = f"{np.median(way.seconds):.1f}"
        out.add_row(way.name, seconds, f"{way.questions_an_hour:.0f}", way.ratio.text(3))
    return out
