"""Measure the ways to compute on this processor at more length, and save the fastest for all engines."""

from math import inf
from pathlib import Path

from ...files.progress import Progress, no_progress
from ...runtime.llama.compute_settings import limit_settings
from ...runtime.llama.model import Model
from ...runtime.llama.settings_choice import save_tuning
from ...runtime.llama.settings_measurement import Tuning, measure_settings
from ...runtime.profile import PROFILES
from ...runtime.threads import default_threads

PROFILE_NAMES = ("laptop", "server")
_REPEATS = 3  # of which the fastest counts: disturbances only slow down
_BUDGET_S = 6.0  # of each


def tune_engine(model: Path, progress: Progress = no_progress) -> dict[str, Tuning]:
    """Measure a model with each way to compute, for the sequences of each profile, in about 40 s.

    A result that other programs have disturbed is not saved.

    Args:
        model: a GGUF file; the results are for all models of its shape.
        progress: called with measurements done and in all.

    Raises:
        ModelFileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        OutputError: a result cannot be saved.
    """
    found = dict[str, Tuning]()
    with Model(model) as loaded:
        for number, name in enumerate(PROFILE_NAMES):
            profile = limit_settings(PROFILES[name], loaded.header, default_threads())
            repeats = []
            for repeat in range(_REPEATS):
                repeats.append(measure_settings(profile, None, loaded, _BUDGET_S))
                progress(number * _REPEATS + repeat + 1, len(PROFILE_NAMES) * _REPEATS)
            found[name] = min(repeats, key=lambda tuning: (not tuning.quiet, _question_s(tuning)))
            if found[name].quiet:
                save_tuning(found[name], profile, None, loaded.header)
    return found


def _question_s(tuning: Tuning) -> float:
    times = (trial.question_s(tuning.slots) for trial in tuning.trials if trial.settings == tuning.settings)
    return next(times, inf)  # a measurement that was given up has none
