"""Measure the ways to compute on this processor at more length, and save the fastest for all engines."""

from dataclasses import replace
from math import inf
from pathlib import Path

from ...files.progress import Progress, no_progress
from ...runtime.llama.compute_settings import limit_settings
from ...runtime.llama.model import Model
from ...runtime.llama.settings_choice import save_tuning
from ...runtime.llama.settings_measurement import Tuning, measure_settings
from ...runtime.profile import PROFILES
from ...runtime.threads import default_threads

_REPEATS = 3  # of which the fastest counts: disturbances only slow down
_BUDGET_S = 4.0  # of each


def tune_engine(model: Path, progress: Progress = no_progress) -> dict[str, Tuning]:
    """Measure a model with each way to compute, in about 40 s.

    It is measured as `ask` and `chat` use it, with one sequence; as servers and votes do, with four; and as
    batches do, with eight and a given number of threads. A result that other programs have disturbed is not
    saved.

    Args:
        model: a GGUF file; the results are for all models of its shape.
        progress: called with measurements done and in all.

    Raises:
        FileError: the file is not a GGUF, is damaged, or cannot be run by this build.
        OutputError: a result cannot be saved.
    """
    found = dict[str, Tuning]()
    laptop, threads = PROFILES["laptop"], default_threads()
    uses = {
        "one answer": (replace(laptop, slots=1), None),
        "several answers": (laptop, None),
        "batch": (PROFILES["server"], threads),
    }
    with Model(model) as loaded:
        for number, (name, (profile, given)) in enumerate(uses.items()):
            limited = limit_settings(profile, loaded.header, threads)
            repeats = []
            for repeat in range(_REPEATS):
                repeats.append(measure_settings(limited, given, loaded, _BUDGET_S))
                progress(number * _REPEATS + repeat + 1, len(uses) * _REPEATS)
            found[name] = min(repeats, key=lambda tuning: (not tuning.quiet, _question_s(tuning)))
            if found[name].quiet:
                save_tuning(found[name], limited, given, loaded.header)
    return found


def _question_s(tuning: Tuning) -> float:
    times = (trial.question_s(tuning.slots) for trial in tuning.trials if trial.settings == tuning.settings)
    return next(times, inf)  # a measurement that was given up has none
