"""How many threads are quickest here, for tokens one after the other and for prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table
from rich.text import Text

from ...files.processors import usable_processors
from ...files.progress import Progress, no_progress
from ...runtime.llama.context import Context, ContextParams, Span
from ...runtime.llama.model import Model
from ...runtime.request import check_integer
from ...runtime.threads import ThreadCounts, physical_cores
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import RATIO_LEVEL, paired_ratio
from ..harness.iteration import random_prompt
from ..harness.schedule import ProgressCounter, alternating_order

ROUNDS = 8
PROMPT = 128
TOKENS = 16
_KINDS = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """One number of threads.

    Attributes:
        threads: how many.
        prefill: median tokens a second of a prompt.
        decode: of tokens one after the other.
        prefill_ratio: to the speed with one thread for each physical core, paired by round.
        decode_ratio: likewise.
    """

    threads: int
    prefill: float
    decode: float
    prefill_ratio: Interval
    decode_ratio: Interval


@dataclass(frozen=True, slots=True)
class ThreadsReport:
    """What was measured; dataclasses.asdict makes it JSON.

    Attributes:
        model: the file.
        rounds: in each, every number of threads had a turn.
        speeds: of each number.
        best: what is quickest, if it is so beyond doubt; else one for each physical core.
    """

    model: str
    rounds: int
    speeds: tuple[ThreadSpeed, ...]
    best: ThreadCounts


def run_thread_sweep(model: Path, *, rounds: int = ROUNDS, progress: Progress = no_progress) -> ThreadsReport:
    """Measure a model with every number of threads that may be of use.

    Args:
        model: a GGUF file, best of the size that will be used.
        rounds: in each, every number has a turn, in reverse order every other round.
        progress: called with what is done and how much there is in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: `rounds` is out of bounds.
    """
    check_integer("bench: rounds", rounds, 1)
    numbers = thread_counts(physical_cores(), usable_processors())
    room = ContextParams(PROMPT + TOKENS, 1, PROMPT, max(numbers), outputs=1)
    seconds = np.empty((rounds, len(numbers), len(_KINDS)))
    tick = ProgressCounter(progress, rounds * len(numbers))
    with Model(model) as loaded, Context(loaded, room) as context:
        _turn(context, random_prompt(loaded, rounds, PROMPT))
        for number in range(rounds):
            prompt = random_prompt(loaded, number, PROMPT)
            for place in alternating_order(len(numbers), number):
                context.use(numbers[place])
                seconds[number, place] = _turn(context, prompt)
                tick()
    speeds = _speeds(numbers, seconds)
    return ThreadsReport(str(model), rounds, speeds, _best(speeds))


def thread_counts(cores: int, processors: int) -> tuple[int, ...]:
    """The numbers that may be of use: a few up to the cores, these, and the processors."""
    spread = np.linspace(1, cores, min(cores, 7)).round().astype(int).tolist()
    return tuple(sorted({*spread, cores, processors}))


def _turn(context: Context, prompt: tuple[int, ...]) -> tuple[float, float]:
    """Seconds for the prompt, and for the tokens after it."""
    began = perf_counter()
    context.decode([Span(0, 0, prompt, rows=1)])
    read = perf_counter()
    for step in range(TOKENS):
        context.decode([Span(0, len(prompt) + step, (prompt[step],), rows=1)])
    wrote = perf_counter()
    context.clear(0)
    return read - began, wrote - read


def _speeds(numbers: Sequence[int], seconds: FloatArray) -> tuple[ThreadSpeed, ...]:
    """From seconds (rounds, numbers, kinds)."""
    per_second = np.array([PROMPT, TOKENS]) / seconds
    usual = numbers.index(physical_cores())

    def ratio(place: int, kind: int) -> Interval:
        return paired_ratio(per_second[:, usual, kind], per_second[:, place, kind])

    medians = np.median(per_second, axis=0)  # (numbers, kinds)
    return tuple(
        ThreadSpeed(
            number, float(medians[place, 0]), float(medians[place, 1]), ratio(place, 0), ratio(place, 1)
        )
        for place, number in enumerate(numbers)
    )


def _best(speeds: Sequence[ThreadSpeed]) -> ThreadCounts:
    def quickest(kind: str) -> int:
        better = [speed for speed in speeds if getattr(speed, f"{kind}_ratio").low > 1]
        best = max(better, key=lambda speed: float(getattr(speed, kind)), default=None)
        return best.threads if best else physical_cores()

    return ThreadCounts(decode=quickest("decode"), prefill=quickest("prefill"))


def thread_sweep_table(report: ThreadsReport) -> Table:
    """A row for each number of threads, and what is best."""
    best = report.best
    out = Table(
        title=f"{Path(report.model).name}: tokens/s, and over those with one for each core ({RATIO_LEVEL})",
        caption=Text(f"best: {best.decode} for decode, {best.prefill} for prefill; {report.rounds} rounds"),
        caption_justify="left",
    )
    for title in ("threads", f"prefill {PROMPT}", "ratio", f"decode {TOKENS}", "ratio"):
        out.add_column(title, justify="right")
    for speed in report.speeds:
        out.add_row(
            str(speed.threads),
            f"{speed.prefill:.1f}",
            speed.prefill_ratio.text(3),
            f"{speed.decode:.1f}",
            speed.decode_ratio.text(3),
        )
    return out
