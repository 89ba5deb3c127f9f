"""Speed of this engine and of other installed programs on the same file, threads and work, interleaved.

"prefill" is a prompt of random tokens, "decode" the tokens after it, "together" is several concurrent
sequences, each with a prompt and a short answer, and "busy" is a short decode beside another program that
keeps a processor busy. Each peer runs in a process of its own with its own
defaults, and in further rows with options that may be faster, which are in the row's name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import RequestError
from ...files.gguf.header import read_header
from ...files.progress import Progress, no_progress
from ...quality.environment import BenchReport, report_head
from ...quality.schedule import ProgressCounter, alternating_order
from ...runtime.validation import check_integer
from ...stats.arrays import Doubles
from ...stats.interval import Interval
from ...stats.paired_ratio import paired_ratio, ratio_level
from ..harness.format import Table, megabytes
from .peer import SPEED_KINDS, PeerWorkload
from .peer_process import OWN, PROGRAMS, PeerProcess, Program

ROUNDS = 8


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersRequest:
    """Options of a comparison with other programs.

    Attributes:
        model: a GGUF file.
        work: the work of one round; by default with one thread per physical core.
        rounds: number of rounds; the order of the peers is reversed in every other round.
        names: programs to compare with; by default all that are installed.
        rows: those of their rows that are measured; all if empty.
    """

    model: Path
    work: PeerWorkload = field(default_factory=PeerWorkload)
    rounds: int = ROUNDS
    names: Sequence[str] = ()
    rows: Sequence[str] = ()


def run_peers(
    request: PeersRequest, progress: Progress = no_progress, programs: Mapping[str, Program] = PROGRAMS
) -> PeersReport:
    """Measure this engine and other programs.

    Args:
        request: what is measured.
        progress: called after each peer's work.
        programs: the programs to choose from, with this engine.

    Raises:
        FileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of range, a name is unknown, or this engine fails.
    """
    check_integer("bench: rounds", request.rounds, 1)
    others = tuple(name for name in programs if name != OWN)
    for name in request.names:
        if name not in others:
            raise RequestError(f"bench: peer {name!r} is not one of {', '.join(others)}")
    read_header(request.model)
    head = report_head()
    absent: dict[str, str] = {}
    with ExitStack() as loaded:
        chosen = {name: programs[name] for name in (OWN, *(request.names or others))}
        peers = [*_load_peers(request, chosen, loaded, absent)]
        speeds = _measure(peers, request.rounds, absent, progress)
    found = tuple(
        _row(peer, speeds[:, 0], speeds[:, index])
        for index, peer in enumerate(peers)
        if peer.name not in absent
    )
    reasons = tuple(f"{name}: not measured: {reason}" for name, reason in absent.items())
    return PeersReport(*head, str(request.model), request.work, request.rounds, found, reasons)


def _load_peers(
    request: PeersRequest, programs: Mapping[str, Program], loaded: ExitStack, absent: dict[str, str]
) -> Iterator[PeerProcess]:
    """Load this engine and the peers; the reasons of those that cannot be are added to `absent`."""
    for program, how in programs.items():
        if reason := how.missing():
            absent[program] = reason
            continue
        for name in how.rows:
            if request.rows and name not in (OWN, *request.rows):
                continue
            try:
                peer = PeerProcess(name, how.worker, request.model, request.work)
            except RequestError as error:
                if name == OWN:
                    raise
                absent[name] = str(error).removeprefix(f"{name}: ")
            else:
                yield loaded.enter_context(closing(peer))


def _measure(
    peers: Sequence[PeerProcess], rounds: int, absent: dict[str, str], progress: Progress
) -> Doubles:
    """Tokens per second, (rounds, peers, kinds); NaN where a peer has no such measurement or failed."""
    advance = ProgressCounter(progress, (1 + rounds) * len(peers))
    speeds = np.full((rounds, len(peers), len(SPEED_KINDS)), np.nan)

    def run(peer: PeerProcess, number: int) -> list[float]:
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


def _row(peer: PeerProcess, ours: Doubles, theirs: Doubles) -> PeerRow:
    """Summarize the speeds of this engine and of a peer, (rounds, kinds) each."""
    speeds: dict[str, float | None] = {}
    ratios: dict[str, Interval | None] = {}
    for index, kind in enumerate(SPEED_KINDS):
        unknown = bool(np.isnan(theirs[:, index]).any())
        speeds[kind] = None if unknown else float(np.median(theirs[:, index]))
        ratios[kind] = None if unknown else paired_ratio(theirs[:, index], ours[:, index])
    return PeerRow(peer.name, peer.version, speeds, ratios, peer.load_s, peer.peak_rss_bytes)


def question_s(row: PeerRow, work: PeerWorkload) -> float:
    """Seconds for a question and its answer."""
    prefill, decode = (row.speeds[kind] or np.nan for kind in ("prefill", "decode"))
    return float(work.prompt_tokens / prefill + work.decode_tokens / decode)


def peers_table(report: PeersReport) -> Table:
    """Table with a row per peer; peers that were not measured and the machine below."""
    work = report.work
    titles = (  # by SPEED_KINDS
        f"prefill {work.prompt_tokens}",
        f"decode {work.decode_tokens} after {work.prompt_tokens}",
        f"{work.sequences} concurrent, {work.short_prompt} + {work.short_answer}",
        "decode beside a busy process",
    )
    columns = (column for title in titles for column in (title, "ratio"))
    rounds = f"medians of {report.rounds} rounds"
    return Table(
        f"{Path(report.model).name}: tokens/s, and thirteen / peer ({ratio_level(report.rounds)})",
        ("", *columns, "load, s", "peak memory, MB"),
        tuple(tuple(_cells(row)) for row in report.rows),
        (*report.absent, rounds, *report.environment(work.threads).splitlines()),
    )


def _cells(row: PeerRow) -> Iterator[str]:
    yield f"{row.name} {row.version}"
    for kind in SPEED_KINDS:
        speed, ratio = row.speeds.get(kind), row.ratios.get(kind)
        yield "none" if speed is None else f"{speed:.1f}"
        yield "" if ratio is None or row.name == OWN else ratio.text(3)
    yield "" if row.load_s is None else f"{row.load_s:.2f}"
    yield "" if row.peak_rss_bytes is None else megabytes(row.peak_rss_bytes)
