"""The same file, threads and work through whatever else is installed, in turns with this engine.

Prefill is a prompt of random tokens, decode follows a prompt of one token, and "together" is several
sequences at once, each with a short prompt and some tokens after it: what llama-bench and llama-batched-bench
measure.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np
from rich.table import Table
from rich.text import Text

from ...files.gguf_header import Header, read_header
from ...files.progress import Progress, no_progress
from ...runtime.request import Request, check_integer
from ...runtime.threads import physical_cores
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import RATIO_LEVEL, paired_ratio
from ..harness.environment import Build, Machine, this_build, this_machine
from ..harness.iteration import random_prompt, time_prefill_and_decode
from ..harness.schedule import ProgressCounter, alternating_order
from ..harness.workload import Workload, load_engine
from .llama_bench import LlamaBench
from .llama_cpp_python import LlamaCppPython
from .peer import SPEED_KINDS, Peer, PeerWorkload
from .transformers import Transformers, missing_packages

ROUNDS = 8


@dataclass(frozen=True, slots=True)
class PeerPrograms:
    """What may be a peer beside what comes with this package; None where it is not named.

    Attributes:
        llama_bench: llama.cpp's program; by default the one on the path, if there is one.
        llama_batched_bench: likewise.
        checkpoint: the folder that the file was made of, for transformers.
    """

    llama_bench: str | None = None
    llama_batched_bench: str | None = None
    checkpoint: Path | None = None


class Thirteen:
    """This engine, as a caller has it."""

    name = "thirteen"

    def __init__(self, model: Path, work: PeerWorkload) -> None:
        self.version, self._work = version("thirteen"), work
        single = Workload(work.prompt_tokens, 1 + work.decode_tokens, work.threads)
        together = Workload(work.short_prompt, 1 + work.short_answer, work.threads)
        with ExitStack() as engines:
            self._single = engines.enter_context(load_engine(model, None, single))
            self._together = engines.enter_context(load_engine(model, None, together, slots=work.sequences))
            self._engines = engines.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engines.close()

    def speeds(self, number: int) -> tuple[float, float, float]:
        """See Peer."""
        work, engine = self._work, self._single
        read_s, _ = time_prefill_and_decode(
            engine, random_prompt(engine.model, number, work.prompt_tokens), 1
        )
        _, wrote_s = time_prefill_and_decode(
            engine, random_prompt(engine.model, number, 1), work.decode_tokens
        )
        requests = [
            Request(
                random_prompt(engine.model, number * work.sequences + one, work.short_prompt),
                max_tokens=1 + work.short_answer,
                ignore_end=True,
            )
            for one in range(work.sequences)
        ]
        began = perf_counter()
        for handle in self._together.submit_all(requests):
            handle.wait()
        together_s = perf_counter() - began
        return work.prompt_tokens / read_s, work.decode_tokens / wrote_s, work.together / together_s


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One peer.

    Attributes:
        name: of it.
        version: of it.
        speeds: median tokens a second, by kind; None where it has none.
        ratios: this engine's speed over its, paired by round, by kind.
    """

    name: str
    version: str
    speeds: Mapping[str, float | None]
    ratios: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True)
class PeersReport:
    """All that was measured, and with what; dataclasses.asdict makes it JSON.

    Attributes:
        date: when it began, in UTC.
        machine: where.
        build: with which versions.
        model: the file.
        work: of a round.
        rounds: in each, every peer did the work once.
        rows: this engine first.
        absent: what could be a peer and is none, and why, a line each.
    """

    date: str
    machine: Machine
    build: Build
    model: str
    work: PeerWorkload
    rounds: int
    rows: tuple[PeerRow, ...]
    absent: tuple[str, ...]


def run_peers(
    model: Path,
    *,
    work: PeerWorkload | None = None,
    rounds: int = ROUNDS,
    programs: PeerPrograms | None = None,
    progress: Progress = no_progress,
) -> PeersReport:
    """Measure whatever is installed.

    Args:
        model: a GGUF file.
        work: of a round; by default with a thread for each physical core.
        rounds: in each, every peer does the work once; in reverse order every other round.
        programs: further peers.
        progress: called with what is done and how much there is in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of bounds, a program that was named fails, or the checkpoint is none of
            that model.
    """
    check_integer("bench: rounds", rounds, 1)
    header, programs = read_header(model), programs or PeerPrograms()
    work = work or PeerWorkload(physical_cores())
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    with ExitStack() as loaded:
        peers = [*_peers(header, work, programs, loaded)]
        tick = ProgressCounter(progress, (1 + rounds) * len(peers))
        measured = np.full((rounds, len(peers), len(SPEED_KINDS)), np.nan)
        for peer in peers:  # a warm-up, with a number that no round has
            peer.speeds(rounds)
            tick()
        for number in range(rounds):
            for place in alternating_order(len(peers), number):
                measured[number, place] = [speed or np.nan for speed in peers[place].speeds(number)]
                tick()
    rows = tuple(_row(peer, measured[:, 0], measured[:, place]) for place, peer in enumerate(peers))
    return PeersReport(date, machine, this_build(), str(model), work, rounds, rows, tuple(_absent(programs)))


def _peers(model: Header, work: PeerWorkload, programs: PeerPrograms, loaded: ExitStack) -> Iterator[Peer]:
    yield loaded.enter_context(Thirteen(model.path, work))
    if command := programs.llama_bench or shutil.which("llama-bench"):
        batched = programs.llama_batched_bench or shutil.which("llama-batched-bench")
        yield LlamaBench(model.path, work, command, batched)
    yield loaded.enter_context(LlamaCppPython(model.path, work))
    if programs.checkpoint:
        yield Transformers(model, programs.checkpoint, work)


def _absent(programs: PeerPrograms) -> Iterator[str]:
    if not (programs.llama_bench or shutil.which("llama-bench")):
        yield "llama-bench: not measured: it is not on the path, and --llama-bench names none"
    if not programs.checkpoint:
        wanting = missing_packages()
        why = f"{' and '.join(wanting)} not installed" if wanting else "--checkpoint names no folder"
        yield f"transformers: not measured: {why}"


def _row(peer: Peer, ours: FloatArray, theirs: FloatArray) -> PeerRow:
    """Of speeds (rounds, kinds) of this engine and of a peer."""
    speeds: dict[str, float | None] = {}
    ratios: dict[str, Interval | None] = {}
    for kind, name in enumerate(SPEED_KINDS):
        missing = bool(np.isnan(theirs[:, kind]).any())
        speeds[name] = None if missing else float(np.median(theirs[:, kind]))
        ratios[name] = None if missing else paired_ratio(theirs[:, kind], ours[:, kind])
    return PeerRow(peer.name, peer.version, speeds, ratios)


def peers_table(report: PeersReport) -> Table:
    """A row for each peer, the circumstances below."""
    work = report.work
    out = Table(
        title=f"{Path(report.model).name}: tokens/s, and thirteen's over theirs ({RATIO_LEVEL})",
        caption=Text(_caption(report)),
        caption_justify="left",
    )
    out.add_column("")
    for title in (
        f"prefill {work.prompt_tokens}",
        f"decode {work.decode_tokens}",
        f"{work.sequences} at once, {work.short_prompt} + {work.short_answer}",
    ):
        out.add_column(title, justify="right")
        out.add_column("ratio", justify="right")
    for row in report.rows:
        out.add_row(Text(f"{row.name} {row.version}"), *_cells(row))
    return out


def _cells(row: PeerRow) -> Iterator[str]:
    for kind in SPEED_KINDS:
        speed, ratio = row.speeds[kind], row.ratios[kind]
        yield "none" if speed is None else f"{speed:.1f}"
        yield "" if ratio is None or row.name == Thirteen.name else ratio.text(3)


def _caption(report: PeersReport) -> str:
    machine = report.machine
    said = "".join(f"{line}\n" for line in report.absent)
    return said + (
        f"medians of {report.rounds} rounds, threads: {report.work.threads}, cores: {machine.cores}, "
        f"load: {machine.load_average}\n"
        f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {report.build.llama_cpp_python}"
    )
