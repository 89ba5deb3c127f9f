"""Find and save what is fastest on this machine: the number of threads, and the way to compute attention."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.text import Text

from ...files.gguf.header import read_header
from ...files.progress import Progress, no_progress
from ...runtime.llama.attention import AttentionTimes, measure_attention, save_attention
from ...runtime.llama.model import Model
from ...runtime.threads import save_threads
from .thread_sweep import ROUNDS, ThreadsReport, run_thread_sweep, thread_sweep_table

_REPEATS = 5  # of the attention, of which the median counts


@dataclass(frozen=True, slots=True)
class EngineTuning:
    """What is fastest on this machine.

    Attributes:
        threads: speed with each number of threads, and the best.
        attention: seconds for an ordinary question with flash and with standard attention.
        flash_attention: which of the two is better.
    """

    threads: ThreadsReport
    attention: AttentionTimes
    flash_attention: bool


def run_engine_tuning(model: Path, *, rounds: int = ROUNDS, progress: Progress = no_progress) -> EngineTuning:
    """Measure a model with each number of threads, then both ways to compute attention with the best of them.

    Args:
        model: a GGUF file, preferably the one that will be used.
        rounds: number of rounds of the thread sweep.
        progress: called with measurements of the thread sweep done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        RequestError: `rounds` is out of range.
    """
    threads = run_thread_sweep(model, rounds=rounds, progress=progress)
    with Model(model) as loaded:
        times = [measure_attention(loaded, threads.best.decode) for _ in range(_REPEATS)]
    flash_s, standard_s = np.median([(one.flash_s, one.standard_s) for one in times], axis=0).tolist()
    attention = AttentionTimes(flash_s, standard_s)
    return EngineTuning(threads, attention, attention.flash_attention)


def save_tuning(tuning: EngineTuning, model: Path) -> tuple[Path, Path]:
    """Save both as the defaults of all engines, the attention for models of this shape.

    Returns:
        The files.

    Raises:
        OutputError: they cannot be written.
    """
    best = tuning.threads.best
    return save_threads(best), save_attention(tuning.attention, read_header(model), best.decode)


def engine_tuning_table(tuning: EngineTuning) -> Group:
    """The table of the thread sweep, with the choice of attention below."""
    times = tuning.attention
    line = (
        f"attention: {'flash' if tuning.flash_attention else 'standard'}; an ordinary question takes "
        f"{times.flash_s:.2f} s with flash attention, {times.standard_s:.2f} s with standard attention"
    )
    return Group(thread_sweep_table(tuning.threads), Text(line))
