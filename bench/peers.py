"""This engine beside llama-cpp-python, on the same file and with the same threads and work.

Each program runs in a process of its own, anew in each round, in an order that is reversed every other round.
It has its own defaults; a setting that may be faster has a row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files.progress import Progress, no_progress
from ..stats.arrays import Doubles
from ..stats.interval import Interval
from ..stats.paired_ratio import ROUNDS_MIN, paired_ratio, ratio_level
from .environment import BenchReport, ModelSource, report_head
from .program_run import PROGRAMS, ProgramRun, run_program
from .schedule import ProgressCounter, alternating_order
from .table import Table
from .workload import Workload


@dataclass(frozen=True, slots=True)
class PeerRow:
    """A program: its version, and medians over the rounds.

    Attributes:
        name: the program, with the settings that are not its defaults.
        version: its version.
        answer_s: seconds of the question and its answer.
        prefill: tokens per second of the question.
        decode: tokens per second of the answer after its first token.
        load_s: seconds to load the model.
        peak_bytes: peak resident memory; None where the system does not report it.
        ratio: seconds of an answer / those of this engine, paired by round.
    """

    name: str
    version: str
    answer_s: float
    prefill: float
    decode: float
    load_s: float
    peak_bytes: int | None
    ratio: Interval


@dataclass(frozen=True, slots=True)
class PeersReport(BenchReport):
    """Speed of this engine, in the first row, and of other programs."""

    verdict: tuple[str, ...]
    model: str
    work: Workload
    rounds: int
    rows: tuple[PeerRow, ...]


def run_peers(
    model: Path, work: Workload, rounds: int = ROUNDS_MIN, progress: Progress = no_progress
) -> PeersReport:
    """Measure this engine and the others.

    Raises:
        FileError: a program cannot run the file.
    """
    head, advance = report_head(), ProgressCounter(progress, rounds * len(PROGRAMS))
    names = list(PROGRAMS)
    runs: dict[str, list[ProgramRun]] = {name: [] for name in names}
    for number in range(rounds):
        for at in alternating_order(len(names), number):
            runs[names[at]].append(run_program(names[at], ModelSource(model), work, number))
            advance()
    own = _answer_s(runs[names[0]])
    rows = tuple(_row(name, of_all, work, own) for name, of_all in runs.items())
    return PeersReport(*head, (_sentence(rows, rounds),), str(model), work, rounds, rows)


def _answer_s(runs: Sequence[ProgramRun]) -> Doubles:
    return np.array([run.answer_s for run in runs])


def _row(name: str, runs: Sequence[ProgramRun], work: Workload, own: Doubles) -> PeerRow:
    """Summarize the runs of a program; `own` are the seconds of this engine's answers, (rounds,)."""
    answer_s, first_token_s = _answer_s(runs), np.array([run.first_token_s for run in runs])  # (rounds,)
    return PeerRow(
        name=name,
        version=runs[0].version,
        answer_s=float(np.median(answer_s)),
        prefill=work.prompt_tokens / float(np.median(first_token_s)),
        decode=work.decode_tokens / float(np.median(answer_s - first_token_s)),
        load_s=float(np.median([run.load_s for run in runs])),
        peak_bytes=runs[-1].peak_bytes,
        ratio=paired_ratio(own, answer_s),
    )


def _sentence(rows: tuple[PeerRow, ...], rounds: int) -> str:
    own, *others = rows
    fastest = min(others, key=lambda row: row.answer_s)
    ratio = fastest.ratio
    word = "as fast as" if not ratio.excludes_one else f"{ratio.estimate:.2f} times as fast as"
    interval = f"{ratio.low:.2f} to {ratio.high:.2f}, {ratio_level(rounds)} sure"
    return (
        f"Speed: an answer takes {own.answer_s:.2f} s here, {fastest.answer_s:.2f} s by {fastest.name}: "
        f"this engine is {word} it ({interval})."
    )


def peers_table(report: PeersReport) -> Table:
    """Table with a row per program, with the machine below."""
    work = report.work
    ratio = f"seconds / thirteen's ({ratio_level(report.rounds)})"
    header = ("", "answer, s", "prefill, tokens/s", "decode, tokens/s", "load, s", "peak memory, MB", ratio)
    rows = (
        (
            f"{row.name} {row.version}",
            f"{row.answer_s:.2f}",
            f"{row.prefill:.1f}",
            f"{row.decode:.1f}",
            f"{row.load_s:.2f}",
            f"{row.peak_bytes / 1e6:.0f}" if row.peak_bytes else "not available",
            row.ratio.text(3) if at else "",
        )
        for at, row in enumerate(report.rows)
    )
    return Table(
        f"{Path(report.model).name}: a question of {work.prompt_tokens} tokens, an answer of "
        f"{1 + work.decode_tokens}",
        header,
        tuple(rows),
        (f"medians of {report.rounds} rounds", report.environment(work.threads)),
    )
