"""The same file, threads and work through whatever else is installed, in turns with this engine.

Prefill is a prompt of random tokens, decode follows a prompt of one token, and "together" is several
sequences at once, each with a short prompt and some tokens after it: what llama-bench and llama-batched-bench
measure.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, Self

import llama_cpp
import numpy as np
from rich.table import Table
from rich.text import Text

from ..errors import RequestError
from ..gguf_file import read_header
from ..runtime.cores import physical_cores
from ..runtime.driver import DRIVER
from ..runtime.engine import Engine
from ..runtime.request import Request, check_whole
from .machine import Build, Machine, this_build, this_machine
from .ratio import Array, Interval, paired_ratio
from .turn import random_prompt, read_and_write

ROUNDS = 5
KINDS = ("prefill", "decode", "together")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What each peer does in a round.

    Attributes:
        threads: that compute.
        prompt_tokens: read in a prefill.
        decode_tokens: written in a decode.
        sequences: together.
        short_prompt: tokens of prompt of each of these.
        short_answer: tokens that each of them writes after its first.
    """

    threads: int
    prompt_tokens: int = 512
    decode_tokens: int = 64
    sequences: int = 8
    short_prompt: int = 64
    short_answer: int = 24

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_whole(f"bench: {name}", getattr(self, name), 1)

    @property
    def together(self) -> int:
        """All tokens of the sequences."""
        return self.sequences * (self.short_prompt + self.short_answer)


class Peer(Protocol):
    """Something that runs the file."""

    name: str
    version: str

    def speeds(self, number: int) -> tuple[float | None, float | None, float | None]:
        """Tokens a second of each of KINDS, in the round of that number; None where it has none."""


class Thirteen:
    """This engine, as a caller has it."""

    name = "thirteen"

    def __init__(self, model: Path, work: Work) -> None:
        self.version, self._work = version("thirteen"), work
        single = max(work.prompt_tokens + 2, work.decode_tokens + 3)
        together = work.short_prompt + work.short_answer + 2
        with ExitStack() as engines:
            self._single = engines.enter_context(_engine(model, work, single, slots=1))
            self._together = engines.enter_context(_engine(model, work, together, slots=work.sequences))
            self._engines = engines.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engines.close()

    def speeds(self, number: int) -> tuple[float, float, float]:
        """See Peer."""
        work, engine = self._work, self._single
        read_s, _ = read_and_write(engine, random_prompt(engine.model, number, work.prompt_tokens), 1)
        _, wrote_s = read_and_write(engine, random_prompt(engine.model, number, 1), work.decode_tokens)
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


def _engine(model: Path, work: Work, context: int, slots: int) -> Engine:
    engine = Engine(model, context=context, slots=slots, threads=work.threads, prefix_bytes=0)
    if engine.context < context:
        engine.close()
        raise RequestError(f"{model}: the work needs {context} tokens, of {engine.context} it has")
    return engine


class LlamaBench:
    """llama.cpp's own benchmarks: llama-bench, and llama-batched-bench where there is that."""

    name = "llama-bench"

    def __init__(self, model: Path, work: Work, command: str, batched: str | None) -> None:
        self._model, self._work, self._command, self._batched = model, work, command, batched
        self.version = self._single()[0]["build_commit"]

    def speeds(self, number: int) -> tuple[float, float, float | None]:
        """See Peer; the numbers do not matter, it has one prompt."""
        prefill, decode = (float(test["avg_ts"]) for test in self._single())
        return prefill, decode, self._together()

    def _single(self) -> list[dict[str, Any]]:
        work = self._work
        said = _run(
            *(self._command, "-m", str(self._model), "-t", str(work.threads), "-r", "1", "-o", "json"),
            *("-p", str(work.prompt_tokens), "-n", str(work.decode_tokens), "-fa", "1"),
        )
        with _understood(self._command):
            tests = [
                {"build_commit": test["build_commit"], "avg_ts": test["avg_ts"]} for test in json.loads(said)
            ]
            prefill, decode = tests
        return [prefill, decode]

    def _together(self) -> float | None:
        if self._batched is None:
            return None
        work, threads = self._work, str(self._work.threads)
        said = _run(
            *(self._batched, "-m", str(self._model), "-t", threads, "-tb", threads, "-fa", "on"),
            *("-c", str(work.together + 64 * work.sequences), "-b", "512", "-ub", "512"),
            *("-npp", str(work.short_prompt), "-ntg", str(work.short_answer), "-npl", str(work.sequences)),
            *("--output-format", "jsonl"),
        )
        with _understood(self._batched):
            (line,) = (line for line in said.splitlines() if line.startswith("{"))
            return float(json.loads(line)["speed"])


class HighLevel:
    """llama-cpp-python's own loop, one request after the other."""

    name = "llama-cpp-python"

    def __init__(self, model: Path, work: Work) -> None:
        self.version, self._work = version("llama-cpp-python"), work
        context = max(work.prompt_tokens, work.decode_tokens, work.short_prompt + work.short_answer) + 8
        self._llama = llama_cpp.Llama(
            str(model),
            n_ctx=context,
            n_batch=512,
            n_threads=work.threads,
            n_threads_batch=work.threads,
            flash_attn=True,
            verbose=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def speeds(self, number: int) -> tuple[float, float, float]:
        """See Peer."""
        return DRIVER.call(lambda: self._speeds(number))  # where this engine computes as well

    def _speeds(self, number: int) -> tuple[float, float, float]:
        work = self._work
        read_s, _ = self._turn(number, work.prompt_tokens, 1)
        _, wrote_s = self._turn(number, 1, work.decode_tokens)
        turns = (
            self._turn(number * work.sequences + one, work.short_prompt, work.short_answer)
            for one in range(work.sequences)
        )
        together_s = sum(map(sum, turns))
        return work.prompt_tokens / read_s, work.decode_tokens / wrote_s, work.together / together_s

    def _turn(self, number: int, prompt: int, answer: int) -> tuple[float, float]:
        """Seconds to the first token, and from there over `answer` more."""
        tokens = np.random.default_rng(number).integers(1, self._llama.n_vocab() // 2, prompt).tolist()
        self._llama.reset()
        began = perf_counter()
        chosen = self._llama.generate(tokens, temp=0.0)
        next(chosen)
        read = perf_counter()
        for _ in range(answer):
            next(chosen)
        return read - began, perf_counter() - read


@contextmanager
def _understood(command: str) -> Iterator[None]:
    """Turn what goes wrong in reading a program's output into an error that names the program."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{command}: its output is not of the kind that is known here") from None


def _run(*command: str) -> str:
    """What a program says on its standard output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own
    except OSError as failure:
        raise RequestError(f"{command[0]}: {failure.strerror or failure}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RequestError(f"{command[0]} ended with status {done.returncode}: {last}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Row:
    """One peer.

    Attributes:
        name: of it.
        version: of it.
        speeds: median tokens a second, by kind; None where it has none.
        ratios: this engine's speed over its, paired by round, by kind.
    """

    name: str
    version: str
    speeds: dict[str, float | None]
    ratios: dict[str, Interval | None]


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
    """

    date: str
    machine: Machine
    build: Build
    model: str
    work: Work
    rounds: int
    rows: tuple[Row, ...]


def run(  # noqa: PLR0913 - the knobs of a measurement, each with its default
    model: Path,
    *,
    work: Work | None = None,
    rounds: int = ROUNDS,
    llama_bench: str | None = None,
    llama_batched_bench: str | None = None,
    progress: Progress = lambda done, total: None,
) -> PeersReport:
    """Measure whatever is installed.

    Args:
        model: a GGUF file.
        work: of a round; by default with a thread for each physical core.
        rounds: in each, every peer does the work once; in reverse order every other round.
        llama_bench: llama.cpp's program; by default the one on the path, if there is one.
        llama_batched_bench: likewise.
        progress: called with what is done and how much there is in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: a number is out of bounds, or a program that was named fails.
    """
    check_whole("bench: rounds", rounds, 1)
    read_header(model)
    work = work or Work(physical_cores())
    date, machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    with ExitStack() as loaded:
        peers: list[Peer] = [
            loaded.enter_context(Thirteen(model, work)),
            *_llama_bench(model, work, llama_bench, llama_batched_bench),
            loaded.enter_context(HighLevel(model, work)),
        ]
        done = count(1)
        measured = np.full((rounds, len(peers), len(KINDS)), np.nan)
        for peer in peers:  # a warm-up, with a number that no round has
            peer.speeds(rounds)
        for number in range(rounds):
            order = range(len(peers)) if number % 2 == 0 else reversed(range(len(peers)))
            for place in order:
                measured[number, place] = [speed or np.nan for speed in peers[place].speeds(number)]
                progress(next(done), rounds * len(peers))
    rows = tuple(_row(peer, measured[:, :1], measured[:, [place]]) for place, peer in enumerate(peers))
    return PeersReport(date, machine, this_build(), str(model), work, rounds, rows)


def _llama_bench(model: Path, work: Work, command: str | None, batched: str | None) -> Iterator[Peer]:
    command = command or shutil.which("llama-bench")
    if command:
        yield LlamaBench(model, work, command, batched or shutil.which("llama-batched-bench"))


def _row(peer: Peer, ours: Array, theirs: Array) -> Row:
    """Of speeds (rounds, 1, kinds) of this engine and of a peer."""
    speeds: dict[str, float | None] = {}
    ratios: dict[str, Interval | None] = {}
    for kind, name in enumerate(KINDS):
        missing = bool(np.isnan(theirs[..., kind]).any())
        speeds[name] = None if missing else float(np.median(theirs[..., kind]))
        ratios[name] = None if missing else paired_ratio(theirs[..., kind], ours[..., kind])
    return Row(peer.name, peer.version, speeds, ratios)


def table(report: PeersReport) -> Table:
    """A row for each peer, the circumstances below."""
    work = report.work
    out = Table(
        title=f"{Path(report.model).name}: tokens/s, and thirteen's over theirs (95 %)",
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


def _cells(row: Row) -> Iterator[str]:
    for kind in KINDS:
        speed, ratio = row.speeds[kind], row.ratios[kind]
        yield "none" if speed is None else f"{speed:.1f}"
        yield "" if ratio is None or row.name == Thirteen.name else ratio.text(3)


def _caption(report: PeersReport) -> str:
    machine = report.machine
    return (
        f"medians of {report.rounds} rounds, threads: {report.work.threads}, cores: {machine.cores}, "
        f"load: {machine.load_average}\n"
        f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {report.build.llama_cpp_python}"
    )
