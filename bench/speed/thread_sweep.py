"""Find the fastest number of threads on this machine, for decode and for prefill."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table

from ...files.processors import usable_processors
from ...files.progress import Progress, no_progress
from ...runtime.llama.context import Context, ContextParams, Span
from ...runtime.llama.model import Model
from ...runtime.threads import ThreadCounts, physical_cores
from ...runtime.validation import check_integer
from ...stats.interval import FloatArray, Interval
from ...stats.paired_ratio import RATIO_LEVEL, paired_ratio
from ..harness.format import report_table
from ..harness.iteration import random_prompt
from ..harness.schedule import ProgressCounter, alternating_order

ROUNDS = 8
PROMPT_TOKENS = 128
DECODE_TOKENS = 16
_PREFILL, _DECODE = range(2)  # indices of the last axis of the times


@dataclass(frozen=True, slots=True)
class ThreadSpeed:
    """Speed with one number of threads.

    Attributes:
        threads: number of threads.
        prefill: median prompt tokens per second.
        decode: median decoded tokens per second.
        prefill_ratio: prefill speed over that with one thread per physical core, paired by round.
        decode_ratio: decode speed over that with one thread per physical core, paired by round.
    """

    threads: int
    prefill: float
    decode: float
    prefill_ratio: Interval
    decode_ratio: Interval


@dataclass(frozen=True, slots=True)
class ThreadsReport:
    """Result of a thread sweep.

    Attributes:
        model: the model file.
        rounds: number of rounds; each measures every number of threads once.
        speeds: speed with each number of threads.
        best: fastest numbers of threads, where significant; otherwise one per physical core.
    """

    model: str
    rounds: int
    speeds: tuple[ThreadSpeed, ...]
    best: ThreadCounts


def run_thread_sweep(model: Path, *, rounds: int = ROUNDS, progress: Progress = no_progress) -> ThreadsReport:
    """Measure a model with each number of threads of thread_counts().

    Args:
        model: a GGUF file, preferably of the size that will be used.
        rounds: number of rounds; every other one has the reverse order.
        progress: called with measurements done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: `rounds` is out of range.
    """
    check_integer("bench: rounds", rounds, 1)
    counts = thread_counts(physical_cores(), usable_processors())
    params = ContextParams(PROMPT_TOKENS + DECODE_TOKENS, 1, PROMPT_TOKENS, max(counts), outputs=1)
    seconds = np.empty((rounds, len(counts), 2))
    advance = ProgressCounter(progress, rounds * len(counts))
    with Model(model) as loaded, Context(loaded, params) as context:
        _time_prefill_and_decode(context, random_prompt(loaded, rounds, PROMPT_TOKENS))  # warm-up
        for number in range(rounds):
            prompt = random_prompt(loaded, number, PROMPT_TOKENS)
            for place in alternating_order(len(counts), number):
                context.set_threads(counts[place])
                seconds[number, place] = _time_prefill_and_decode(context, prompt)
                advance()
    speeds = _speeds(counts, seconds)
    return ThreadsReport(str(model), rounds, speeds, _best(speeds))


def thread_counts(cores: int, processors: int) -> tuple[int, ...]:
    """Numbers of threads to try: up to seven from 1 to the physical cores, and all processors."""
    spread = np.linspace(1, cores, min(cores, 7)).round().astype(int).tolist()
    return tuple(sorted({*spread, cores, processors}))


def _time_prefill_and_decode(context: Context, prompt: tuple[int, ...]) -> tuple[float, float]:
    start = perf_counter()
    context.decode([Span(0, 0, prompt, rows=1)])
    prefilled = perf_counter()
    for step in range(DECODE_TOKENS):
        context.decode([Span(0, len(prompt) + step, (prompt[step],), rows=1)])
    decoded = perf_counter()
    context.clear(0)
    return prefilled - start, decoded - prefilled


def _speeds(counts: Sequence[int], seconds: FloatArray) -> tuple[ThreadSpeed, ...]:
    """Summarize seconds, (rounds, counts, 2)."""
    tokens_per_s = np.array([PROMPT_TOKENS, DECODE_TOKENS]) / seconds
    usual = counts.index(physical_cores())

    def ratio(place: int, phase: int) -> Interval:
        return paired_ratio(tokens_per_s[:, usual, phase], tokens_per_s[:, place, phase])

    medians = np.median(tokens_per_s, axis=0)  # (counts, 2)
    return tuple(
        ThreadSpeed(
            threads=count,
            prefill=float(medians[place, _PREFILL]),
            decode=float(medians[place, _DECODE]),
            prefill_ratio=ratio(place, _PREFILL),
            decode_ratio=ratio(place, _DECODE),
        )
        for place, count in enumerate(counts)
    )


def _best(speeds: Sequence[ThreadSpeed]) -> ThreadCounts:
    def fastest(phase: str) -> int:
        faster = [speed for speed in speeds if getattr(speed, f"{phase}_ratio").low > 1]
        best = max(faster, key=lambda speed: float(getattr(speed, phase)), default=None)
        return best.threads if best else physical_cores()

    return ThreadCounts(decode=fastest("decode"), prefill=fastest("prefill"))


def thread_sweep_table(report: ThreadsReport) -> Table:
    """Tabulate each number of threads, with the best below."""
    best = report.best
    title = f"{Path(report.model).name}: tokens/s, and ratio to one thread per core ({RATIO_LEVEL})"
    caption = f"best: {best.decode} for decode, {best.prefill} for prefill; {report.rounds} rounds"
    columns = ("threads", f"prefill {PROMPT_TOKENS}", "ratio", f"decode {DECODE_TOKENS}", "ratio")
    table = report_table(title, caption, *columns)
    for speed in report.speeds:
        table.add_row(
            str(speed.threads),
            f"{speed.prefill:.1f}",
            speed.prefill_ratio.text(3),
            f"{speed.decode:.1f}",
            speed.decode_ratio.text(3),
        )
    return table
