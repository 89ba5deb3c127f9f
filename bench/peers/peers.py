"""Speed of this engine and of other installed programs on the same file, threads and work, interleaved.

"prefill" is a prompt of random tokens, "decode" the tokens after it, "together" is several concurrent
sequences, each with a prompt and a short answer, and "busy" is a short decode beside another program that
keeps a processor busy. Each peer runs in a process of its own with its own
defaults, and in further rows with options that may be faster, which are in the row's name.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from ...errors import RequestError
from ...files.gguf.header import Header, read_header
from ...files.progress import Progress, no_progress
from ...runtime.validation import check_integer
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import paired_ratio, ratio_level
from ..harness.environment import BenchReport, report_head
from ..harness.format import megabytes, report_table
from ..harness.schedule import ProgressCounter, alternating_order
from .llama_bench import LlamaBenchPeer, llama_bench_name
from .llama_cpp_python import LlamaCppPythonPeer
from .peer import SPEED_KINDS, Peer, PeerWorkload
from .peer_process import PACKAGES, PeerProcess, missing, row_names
from .thirteen import ThirteenPeer
from .transformers import TransformersPeer, missing_packages

ROUNDS = 8


@dataclass(frozen=True, slots=True)
class PeerPrograms:
    """Peers to measure; None where the user names none.

    Attributes:
        llama_bench: path of llama-bench; by default the one on PATH, if any.
        llama_batched_bench: path of llama-batched-bench; by default the one on PATH, if any.
        checkpoint: folder that the file was made from, for transformers.
        packages: programs of PACKAGES.
        rows: those of their rows that are measured; all if empty.
    """

    llama_bench: str | None = None
    llama_batched_bench: str | None = None
    checkpoint: Path | None = None
    packages: tuple[str, ...] = PACKAGES
    rows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.packages:
            if name not in PACKAGES:
                raise RequestError(f"bench: peer {name!r} is not one of {', '.join(PACKAGES)}")


@dataclass(frozen=True, slots=True)
class PeerRow:
    """Result of one peer.

    Attributes:
        name: its name.
        version: its version.
        speeds: median tokens per second by kind; None where it was not measured.
        ratios: speed of this engine / speed of the peer by kind, paired by round.
        load_s: seconds to load the model; None for programs that load it in every round.
        peak_rss_bytes: peak of the resident memory of its process; None where it has no own.
    """

    name: str
    version: str
    speeds: Mapping[str, float | None]
    ratios: Mapping[str, Interval | None]
    load_s: float | None
    peak_rss_bytes: int | None


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
        RequestError: a number is out of range, a program given by the user fails or cannot take part, or the
            checkpoint is not of that model.
    """
    check_integer("bench: rounds", rounds, 1)
    header, programs, workload = read_header(model), programs or PeerPrograms(), workload or PeerWorkload()
    if programs.llama_batched_bench and not (programs.llama_bench or shutil.which("llama-bench")):
        raise RequestError("bench: --llama-batched-bench requires llama-bench, on PATH or by --llama-bench")
    head = report_head()
    absent: dict[str, str] = {}
    with ExitStack() as loaded:
        peers = [*_load_peers(header, workload, programs, loaded, absent)]
        speeds = _measure(peers, rounds, absent, progress)
        memory = [getattr(peer, "peak_rss_bytes", None) for peer in peers]
    rows = tuple(
        _row(peer, memory[index], speeds[:, 0], speeds[:, index])
        for index, peer in enumerate(peers)
        if peer.name not in absent
    )
    rows += tuple(_best_setting(rows, workload))
    reasons = tuple(f"{name}: not measured: {reason}" for name, reason in absent.items())
    return PeersReport(*head, str(model), workload, rounds, rows, reasons)


def _load_peers(
    model: Header, workload: PeerWorkload, programs: PeerPrograms, loaded: ExitStack, absent: dict[str, str]
) -> Iterator[Peer]:
    """Load this engine and the peers; the reasons of those that cannot be are added to `absent`."""
    yield loaded.enter_context(PeerProcess(ThirteenPeer.name, model.path, workload))
    if not programs.rows:
        yield from _load_llama_bench(model.path, workload, programs, absent)
    for program in programs.packages:
        if reason := missing(program):
            absent[program] = reason
            continue
        for name in row_names(program):
            if programs.rows and name not in programs.rows:
                continue
            try:
                peer = PeerProcess(name, model.path, workload)
            except RequestError as error:
                absent[name] = str(error).removeprefix(f"{name}: ")
            else:
                yield loaded.enter_context(peer)
    if programs.checkpoint:
        yield TransformersPeer(model, programs.checkpoint, workload)
    else:
        packages = missing_packages()
        reason = f"{' and '.join(packages)} not installed" if packages else "--checkpoint is not given"
        absent["transformers"] = reason


def _load_llama_bench(
    model: Path, workload: PeerWorkload, programs: PeerPrograms, absent: dict[str, str]
) -> Iterator[Peer]:
    """Load llama-bench. One that the user gave must run; one that was merely found may be too old."""
    command = programs.llama_bench or shutil.which("llama-bench")
    if command is None:
        absent["llama-bench"] = "it is not on PATH, and --llama-bench is not given"
        return
    batched = programs.llama_batched_bench or shutil.which("llama-batched-bench")
    for flash in (False, True):
        try:
            yield LlamaBenchPeer(model, workload, command, batched, flash=flash)
        except RequestError as error:
            if programs.llama_bench:
                raise
            absent[llama_bench_name(flash=flash)] = str(error)


def _measure(peers: Sequence[Peer], rounds: int, absent: dict[str, str], progress: Progress) -> FloatArray:
    """Tokens per second, (rounds, peers, kinds); NaN where a peer has no such measurement or failed."""
    advance = ProgressCounter(progress, (1 + rounds) * len(peers))
    speeds = np.full((rounds, len(peers), len(SPEED_KINDS)), np.nan)

    def run(peer: Peer, number: int) -> list[float]:
        try:
            return [speed or np.nan for speed in peer.speeds(number)]
        except RequestError as error:
            if peer is peers[0]:
                raise  # this engine itself
            absent[peer.name] = str(error).removeprefix(f"{peer.name}: ")
            return [np.nan] * len(SPEED_KINDS)

    for peer in peers:
        run(peer, rounds)  # warm-up, with a seed of no round
        advance()
    for number in range(rounds):
        for index in alternating_order(len(peers), number):
            if peers[index].name not in absent:
                speeds[number, index] = run(peers[index], number)
            advance()
    return speeds


def _row(peer: Peer, peak_rss_bytes: int | None, ours: FloatArray, theirs: FloatArray) -> PeerRow:
    """Summarize the speeds of this engine and of a peer, (rounds, kinds) each."""
    speeds: dict[str, float | None] = {}
    ratios: dict[str, Interval | None] = {}
    for index, kind in enumerate(SPEED_KINDS):
        unknown = bool(np.isnan(theirs[:, index]).any())
        speeds[kind] = None if unknown else float(np.median(theirs[:, index]))
        ratios[kind] = None if unknown else paired_ratio(theirs[:, index], ours[:, index])
    return PeerRow(peer.name, peer.version, speeds, ratios, getattr(peer, "load_s", None), peak_rss_bytes)


def _best_setting(rows: Sequence[PeerRow], work: PeerWorkload) -> Iterator[PeerRow]:
    """The row of plain llama-cpp-python's setting that answers a question first, by a name of its own."""
    name = LlamaCppPythonPeer.name
    found = [row for row in rows if row.name.startswith(name)]
    if len(found) > 1:
        best = min(found, key=lambda row: question_s(row, work))
        setting = best.name.removeprefix(name).strip() or "the defaults"
        yield replace(best, name=f"{name}'s best setting, {setting}:")


def question_s(row: PeerRow, work: PeerWorkload) -> float:
    """Seconds for a question and its answer."""
    prefill, decode = (row.speeds[kind] or np.nan for kind in ("prefill", "decode"))
    return float(work.prompt_tokens / prefill + work.decode_tokens / decode)


def work_titles(work: PeerWorkload) -> tuple[str, ...]:
    """Column titles by SPEED_KINDS."""
    return (
        f"prefill {work.prompt_tokens}",
        f"decode {work.decode_tokens} after {work.depth}",
        f"{work.sequences} concurrent, {work.short_prompt} + {work.short_answer}",
        "decode beside a busy process",
    )


def peers_table(report: PeersReport) -> Table:
    """Table with a row per peer; peers that were not measured and the machine below."""
    title = f"{Path(report.model).name}: tokens/s, and thirteen / peer ({ratio_level(report.rounds)})"
    columns = (column for title in work_titles(report.work) for column in (title, "ratio"))
    table = report_table(title, _caption(report), "", *columns, "load, s", "peak memory, MB")
    for row in report.rows:
        load = "" if row.load_s is None else f"{row.load_s:.2f}"
        memory = "" if row.peak_rss_bytes is None else megabytes(row.peak_rss_bytes)
        table.add_row(Text(f"{row.name} {row.version}"), *_cells(row), load, memory)
    return table


def _cells(row: PeerRow) -> Iterator[str]:
    for kind in SPEED_KINDS:
        speed, ratio = row.speeds[kind], row.ratios[kind]
        yield "none" if speed is None else f"{speed:.1f}"
        yield "" if ratio is None or row.name == ThirteenPeer.name else ratio.text(3)


def _caption(report: PeersReport) -> str:
    rounds = f"medians of {report.rounds} rounds, {report.environment(report.work.threads)}"
    return "\n".join((*report.absent, rounds))
