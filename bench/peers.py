"""This engine beside llama-cpp-python, on the same file and with the same threads and work.

Each program runs in a process of its own, anew in each round, in an order that is reversed every other round.
It has its own defaults; a setting that may be faster has a row of its own.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..files.progress import Progress, no_progress
from ..stats.intervals import ROUNDS_MIN, Interval, paired_ratio, ratio_level
from .environment import BenchReport, ModelSource, report_head
from .program_run import PROGRAMS, ProgramRun, run_program
from .rounds import ProgressCounter, in_turns
from .table import Table
from .workload import Workload


@dataclass(frozen=True, slots=True)
class PeersReport(BenchReport):
    """Runs of this engine and then of other programs, one a round; ratios of their seconds to this one's."""

    model: str
    work: Workload
    runs: dict[str, tuple[ProgramRun, ...]]
    ratios: dict[str, Interval]


def run_peers(
    model: Path, work: Workload, rounds: int = ROUNDS_MIN, progress: Progress = no_progress
) -> PeersReport:
    """Measure this engine and the others.

    Raises:
        FileError: a program cannot run the file.
    """
    head, advance = report_head(), ProgressCounter(progress, rounds * len(PROGRAMS))
    tasks = [partial(run_program, name, ModelSource(model), work) for name in PROGRAMS]
    runs = dict(zip(PROGRAMS, map(tuple, in_turns(tasks, rounds, advance)), strict=True))
    seconds = {name: np.array([run.answer_s for run in of_all]) for name, of_all in runs.items()}  # (rounds,)
    own, *others = seconds
    ratios = {name: paired_ratio(seconds[own], seconds[name]) for name in others}
    fastest = min(others, key=lambda name: np.median(seconds[name]))
    ratio = ratios[fastest]
    word = "as fast as" if not ratio.excludes_one else f"{ratio.estimate:.2f} times as fast as"
    here, there = (float(np.median(seconds[name])) for name in (own, fastest))
    sentence = (
        f"Speed: an answer takes {here:.2f} s here, {there:.2f} s by {fastest}: this engine is {word} it "
        f"({ratio.low:.2f} to {ratio.high:.2f}, {ratio_level(rounds)} sure)."
    )
    return PeersReport(*head, (sentence,), str(model), work, runs, ratios)


def peers_table(report: PeersReport) -> Table:
    """Tabulate the programs by their medians, with the machine below."""
    work, rounds = report.work, len(next(iter(report.runs.values())))
    header = ("", "answer, s", "prefill, tokens/s", "decode, tokens/s", "load, s", "peak memory, MB")
    question = f"a question of {work.prompt_tokens} tokens, an answer of {1 + work.decode_tokens}"
    return Table(
        f"{Path(report.model).name}: {question}",
        (*header, f"seconds / thirteen's ({ratio_level(rounds)})"),
        tuple(_row(name, report) for name in report.runs),
        (f"medians of {rounds} rounds", report.environment(work.threads)),
    )


def _row(name: str, report: PeersReport) -> tuple[str, ...]:
    runs, work = report.runs[name], report.work
    answer_s, first_s, load_s, peak_bytes = np.array(
        [(run.answer_s, run.first_token_s, run.load_s, run.peak_bytes) for run in runs]
    ).T  # (rounds,) each
    ratio = report.ratios.get(name)
    return (
        f"{name} {runs[0].version}",
        f"{np.median(answer_s):.2f}",
        f"{work.prompt_tokens / np.median(first_s):.1f}",
        f"{work.decode_tokens / np.median(answer_s - first_s):.1f}",
        f"{np.median(load_s):.2f}",
        f"{np.median(peak_bytes) / 1e6:.0f}",
        ratio.text(3) if ratio else "",
    )
