"""Measure the ways to compute on this processor at more length, and save the fastest for all engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from rich.console import Group
from rich.table import Table

from ...files.progress import Progress, no_progress
from ...runtime.llama.autotune import save_tuning
from ...runtime.llama.compute_settings import ComputeSettings, limit_settings
from ...runtime.llama.model import Model
from ...runtime.llama.settings_measurement import Trial, Tuning, measure_settings
from ...runtime.profile import PROFILES
from ...runtime.threads import default_threads
from ..harness.format import report_table

PROFILE_NAMES = ("laptop", "server")
_REPEATS = 3  # of which each way's fastest times count: disturbances only slow down
_BUDGET_S = 6.0  # of each


@dataclass(frozen=True, slots=True)
class EngineTuning:
    """The fastest settings on this machine.

    Attributes:
        model: the model file.
        profiles: the result for each profile.
    """

    model: str
    profiles: dict[str, Tuning]


def run_engine_tuning(
    model: Path,
    *,
    profiles: Sequence[str] = PROFILE_NAMES,
    keep: bool = True,
    progress: Progress = no_progress,
) -> tuple[EngineTuning, list[Path]]:
    """Measure a model with each way to compute, for the sequences of each profile.

    Args:
        model: a GGUF file, preferably the one that will be used.
        profiles: names of profiles.
        keep: whether to save the results for all engines with models of this shape.
        progress: called with measurements done and in all.

    Returns:
        The result, and the saved files.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        OutputError: a result cannot be saved.
    """
    found, saved = dict[str, Tuning](), list[Path]()
    with Model(model) as loaded:
        for number, name in enumerate(profiles):
            profile = limit_settings(PROFILES[name], loaded.header, default_threads())
            repeats = []
            for repeat in range(_REPEATS):
                repeats.append(measure_settings(profile, None, loaded, _BUDGET_S))
                progress(number * _REPEATS + repeat + 1, len(profiles) * _REPEATS)
            found[name] = min(repeats, key=lambda tuning: (not tuning.quiet, _question_s(tuning)))
            if keep and found[name].quiet:
                saved.append(save_tuning(found[name], profile, None, loaded.header))
    return EngineTuning(str(model), found), saved


def _question_s(tuning: Tuning) -> float:
    times = (trial.question_s(tuning.slots) for trial in tuning.trials if trial.settings == tuning.settings)
    return next(times, inf)  # a measurement that was given up has none


def engine_tuning_table(report: EngineTuning) -> Group:
    """A table for each profile, with the fastest settings below."""
    return Group(*(_table(name, tuning) for name, tuning in report.profiles.items()))


def _table(name: str, tuning: Tuning) -> Table:
    disturbed = "" if tuning.quiet else "; other programs have disturbed it"
    table = report_table(
        f"profile {name}: tokens/s in an ordinary question",
        f"fastest: {_words(tuning.settings)}{disturbed}",
        *("attention, KV cache", "threads", "micro-batch"),
        *("prefill", "decode", f"decode, {tuning.slots} sequences"),
    )
    for trial in tuning.trials:
        settings = trial.settings
        table.add_row(
            _way(settings),
            f"{settings.threads}, prefill {settings.prefill_threads}",
            str(settings.micro_batch),
            *(f"{speed:.1f}" for speed in _speeds(trial, tuning.slots)),
        )
    return table


def _speeds(trial: Trial, slots: int) -> tuple[float, float, float]:
    return 1 / trial.prefill_s, 1 / trial.decode_s, slots / trial.together_s


def _way(settings: ComputeSettings) -> str:
    return f"{'flash' if settings.flash_attention else 'standard'} {settings.kv}"


def _words(settings: ComputeSettings) -> str:
    threads = f"{settings.threads} threads for decode, {settings.prefill_threads} for prefill"
    return f"{_way(settings)}, {threads}, micro-batch {settings.micro_batch}"
