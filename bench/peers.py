"""This engine beside llama-cpp-python, on the same file and with the same threads and work.

Each program runs in a process of its own, anew in each round, in an order that is reversed every other round.
It has its own defaults; a setting that may be faster has a row of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..files.progress import Progress
from ..stats.intervals import Interval, paired_ratio, ratio_level
from .environment import BenchReport, ModelSource, Table, report_head
from .program_run import PROGRAMS, ProgramRun, run_program
from .rounds import ProgressCounter, in_turns
from .workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class PeersReport(BenchReport):
    """Runs of this engine and then of other programs, one a round; ratios of their seconds to this one's."""

    model: str
    work: Workload
    runs: dict[str, tuple[ProgramRun, ...]]
    ratios: dict[str, Interval]

    def sentences(self) -> Iterator[str]:
        """An answer's seconds by this engine and by the fastest of the others."""
        here, *others = (float(np.median([run.answer_s for run in runs])) for runs in self.runs.values())
        there, fastest = min(zip(others, self.ratios, strict=True))
        ratio = self.ratios[fastest]
        word = "as fast as" if not ratio.excludes_one else f"{ratio.estimate:.2f} times as fast as"
        yield (
            f"Speed: an answer takes {here:.2f} s here, {there:.2f} s by {fastest}: this engine is {word} it "
            f"({ratio.low:.2f} to {ratio.high:.2f}, {self._level} sure)."
        )

    def table(self) -> Table:
        """The programs by their medians."""
        question = (
            f"a question of {self.work.prompt_tokens} tokens, an answer of {1 + self.work.decode_tokens}"
        )
        header = ("", "answer, s", "prefill, tokens/s", "decode, tokens/s", "load, s", "peak memory, MB")
        return Table(
            f"{Path(self.model).name}: {question}",
            (*header, f"seconds / thirteen's ({self._level})"),
            tuple(map(self._row, self.runs)),
            (f"medians of {self._rounds} rounds", self.environment(self.work.threads)),
        )

    @property
    def _rounds(self) -> int:
        return len(next(iter(self.runs.values())))

    @property
    def _level(self) -> str:
        return ratio_level(self._rounds)

    def _row(self, name: str) -> tuple[str, ...]:
        runs, work = self.runs[name], self.work
        answer_s, first_s, load_s, peak_bytes = np.array(
            [(run.answer_s, run.first_token_s, run.load_s, run.peak_bytes) for run in runs]
        ).T  # (rounds,) each
        ratio = self.ratios.get(name)
        return (
            f"{name} {runs[0].version}",
            f"{np.median(answer_s):.2f}",
            f"{work.prompt_tokens / np.median(first_s):.1f}",
            f"{work.decode_tokens / np.median(answer_s - first_s):.1f}",
            f"{np.median(load_s):.2f}",
            f"{np.median(peak_bytes) / 1e6:.0f}",
            ratio.text(3) if ratio else "",
        )


def run_peers(model: Path, work: Workload, rounds: int, progress: Progress) -> PeersReport:
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
    return PeersReport(**head, model=str(model), work=work, runs=runs, ratios=ratios)
