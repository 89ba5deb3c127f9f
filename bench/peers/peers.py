"""Speed of this engine and of other installed programs on the same file, threads and work, interleaved.

"prefill" is a prompt of random tokens, "decode" follows a prompt of one token, and "together" is several
concurrent sequences, each with a short prompt and a short answer: the measurements of llama-bench and
llama-batched-bench.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Self

import numpy as np
from rich.table import Table
from rich.text import Text

from ...files.gguf_header import Header, read_header
from ...files.progress import Progress, no_progress
from ...runtime.request import Request
from ...runtime.validation import check_integer
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import RATIO_LEVEL, paired_ratio
from ..harness.environment import BenchReport, report_head
from ..harness.format import report_table
from ..harness.iteration import random_prompt, time_prefill_and_decode
from ..harness.schedule import ProgressCounter, alternating_order
from ..harness.workload import Workload, load_engine
from .llama_bench import LlamaBenchPeer
from .llama_cpp_python import LlamaCppPythonPeer
from .peer import SPEED_KINDS, Peer, PeerWorkload
from .transformers import TransformersPeer, missing_packages

ROUNDS = 8


@dataclass(frozen=True, slots=True)
class PeerPrograms:
    """Peers that do not come with this package; None where the user names none.

    Attributes:
        llama_bench: path of llama-bench; by default the one on PATH, if any.
        llama_batched_bench: path of llama-batched-bench; by default the one on PATH, if any.
        checkpoint: folder that the file was made from, for transformers.
    """

    llama_bench: str | None = None
    llama_batched_bench: str | None = None
    checkpoint: Path | None = None


class ThirteenPeer:
    """This engine, through its public API."""

    name = "thirteen"

    def __init__(self, model: Path, workload: PeerWorkload) -> None:
        self.version, self._workload = version("thirteen"), workload
        single = Workload(workload.prompt_tokens, 1 + workload.decode_tokens, workload.threads)
        batched = Workload(workload.short_prompt, 1 + workload.short_answer, workload.threads)
        with ExitStack() as engines:
            self._single = engines.enter_context(load_engine(model, None, single))
            self._batched = engines.enter_context(load_engine(model, None, batched, slots=workload.sequences))
            self._engines = engines.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engines.close()

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round."""
        work, engine = self._workload, self._single
        prompt = random_prompt(engine.model, round_number, work.prompt_tokens)
        prefill_s, _ = time_prefill_and_decode(engine, prompt, 1)
        first_token = random_prompt(engine.model, round_number, 1)
        _, decode_s = time_prefill_and_decode(engine, first_token, work.decode_tokens)
        together_s = self._time_batch(round_number)
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

    def _time_batch(self, round_number: int) -> float:
        work, model = self._workload, self._single.model
        first = round_number * work.sequences
        requests = [
            Request(
                random_prompt(model, number, work.short_prompt),
                max_tokens=1 + work.short_answer,
                ignore_end=True,
            )
            for number in range(first, first + work.sequences)
        ]
        start = perf_counter()
        for handle in self._batched.submit_all(requests):
            handle.wait()
        return perf_counter() - start


@dataclass(frozen=True, slots=True)
class PeerRow:
    """Result of one peer.

    Attributes:
        name: its name.
        version: its version.
        speeds: median tokens per second by kind; None where it was not measured.
        ratios: speed of this engine / speed of the peer by kind, paired by round.
    """

    name: str
    version: str
    speeds: Mapping[str, float | None]
    ratios: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True)
class PeersReport(BenchReport):
    """Speed of this engine and of other programs.

    Attributes:
        model: the model file.
        work: the work of one round.
        rounds: number of rounds; every peer does the work once in each.
        rows: results, this engine first.
        absent: one line per peer that was not measured, with the reason.
    """

    model: str
    work: PeerWorkload
    rounds: int
    rows: tuple[PeerRow, ...]
    absent: tuple[str, ...]


def run_peers(
    model: Path,
    *,
    workload: PeerWorkload | None = None,
    rounds: int = ROUNDS,
    programs: PeerPrograms | None = None,
    progress: Progress = no_progress,
) -> PeersReport:
    """Measure this engine and every other installed program.

    Args:
        model: a GGUF file.
        workload: the work of one round; by default with one thread per physical core.
        rounds: number of rounds; the order of the peers is reversed in every other round.
        programs: further peers.
        progress: called after each peer's work.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of range, a program given by the user fails, or the checkpoint is not
            of that model.
    """
    check_integer("bench: rounds", rounds, 1)
    header, programs, workload = read_header(model), programs or PeerPrograms(), workload or PeerWorkload()
    head = report_head()
    with ExitStack() as loaded:
        peers = [*_load_peers(header, workload, programs, loaded)]
        speeds = _measure(peers, rounds, progress)
    rows = tuple(_row(peer, speeds[:, 0], speeds[:, index]) for index, peer in enumerate(peers))
    return PeersReport(*head, str(model), workload, rounds, rows, tuple(_absent(programs)))


def _load_peers(
    model: Header, workload: PeerWorkload, programs: PeerPrograms, loaded: ExitStack
) -> Iterator[Peer]:
    yield loaded.enter_context(ThirteenPeer(model.path, workload))
    if command := programs.llama_bench or shutil.which("llama-bench"):
        batched = programs.llama_batched_bench or shutil.which("llama-batched-bench")
        yield LlamaBenchPeer(model.path, workload, command, batched)
    yield loaded.enter_context(LlamaCppPythonPeer(model.path, workload))
    if programs.checkpoint:
        yield TransformersPeer(model, programs.checkpoint, workload)


def _measure(peers: Sequence[Peer], rounds: int, progress: Progress) -> FloatArray:
    """Tokens per second, (rounds, peers, kinds); NaN where a peer has no such measurement."""
    advance = ProgressCounter(progress, (1 + rounds) * len(peers))
    speeds = np.full((rounds, len(peers), len(SPEED_KINDS)), np.nan)
    for peer in peers:
        peer.speeds(rounds)  # warm-up, with a seed of no round
        advance()
    for number in range(rounds):
        for index in alternating_order(len(peers), number):
            speeds[number, index] = [speed or np.nan for speed in peers[index].speeds(number)]
            advance()
    return speeds


def _absent(programs: PeerPrograms) -> Iterator[str]:
    if not (programs.llama_bench or shutil.which("llama-bench")):
        yield "llama-bench: not measured: it is not on PATH, and --llama-bench is not given"
    if not programs.checkpoint:
        missing = missing_packages()
        reason = f"{' and '.join(missing)} not installed" if missing else "--checkpoint is not given"
        yield f"transformers: not measured: {reason}"


def _row(peer: Peer, ours: FloatArray, theirs: FloatArray) -> PeerRow:
    """Summarize the speeds of this engine and of a peer, (rounds, kinds) each."""
    speeds: dict[str, float | None] = {}
    ratios: dict[str, Interval | None] = {}
    for index, kind in enumerate(SPEED_KINDS):
        missing = bool(np.isnan(theirs[:, index]).any())
        speeds[kind] = None if missing else float(np.median(theirs[:, index]))
        ratios[kind] = None if missing else paired_ratio(theirs[:, index], ours[:, index])
    return PeerRow(peer.name, peer.version, speeds, ratios)


def work_titles(work: PeerWorkload) -> tuple[str, ...]:
    """Column titles by SPEED_KINDS."""
    return (
        f"prefill {work.prompt_tokens}",
        f"decode {work.decode_tokens}",
        f"{work.sequences} concurrent, {work.short_prompt} + {work.short_answer}",
    )


def peers_table(report: PeersReport) -> Table:
    """Table with a row per peer; peers that were not measured and the machine below."""
    title = f"{Path(report.model).name}: tokens/s, and thirteen / peer ({RATIO_LEVEL})"
    columns = (column for title in work_titles(report.work) for column in (title, "ratio"))
    table = report_table(title, _caption(report), "", *columns)
    for row in report.rows:
        table.add_row(Text(f"{row.name} {row.version}"), *_cells(row))
    return table


def _cells(row: PeerRow) -> Iterator[str]:
    for kind in SPEED_KINDS:
        speed, ratio = row.speeds[kind], row.ratios[kind]
        yield "none" if speed is None else f"{speed:.1f}"
        yield "" if ratio is None or row.name == ThirteenPeer.name else ratio.text(3)


def _caption(report: PeersReport) -> str:
    rounds = f"medians of {report.rounds} rounds, {report.environment(report.work.threads)}"
    return "\n".join((*report.absent, rounds))
