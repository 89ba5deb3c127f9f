"""Measure the ways to compute on this processor at more length, and save the fastest for all engines."""

from collections.abc import Mapping
from contextlib import ExitStack
from math import inf
from pathlib import Path

from ...files.progress import Progress, no_progress
from ...runtime.llama.gguf_checks import read_model_header
from ...runtime.llama.model import Model
from ...runtime.machine.threads import default_threads
from ...runtime.plan.candidates import Candidates, find_candidates
from ...runtime.plan.measurement import measure_settings
from ...runtime.plan.options import EngineOptions, default_settings
from ...runtime.plan.plan import proven_candidates
from ...runtime.plan.tuning import Tuning, join_tunings, save_tuning

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
    header = read_model_header(model)
    uses = {
        "one answer": EngineOptions(slots=1),
        "several answers": EngineOptions(),
        "batch": EngineOptions(profile="server", threads=default_threads()),
    }
    open_ = {
        name: proven_candidates(find_candidates(default_settings(one), one, header), header)
        for name, one in uses.items()
    }
    libraries = {way.library for candidates in open_.values() for way in candidates.ways}
    with ExitStack() as loaded:
        models = {name: loaded.enter_context(Model(model, library=name)) for name in libraries}
        for number, (name, candidates) in enumerate(open_.items()):
            repeats = []
            for repeat in range(_REPEATS):
                repeats.append(_measured(candidates, models))
                progress(number * _REPEATS + repeat + 1, len(uses) * _REPEATS)
            found[name] = min(repeats, key=lambda tuning: (not tuning.quiet, _question_s(tuning)))
            if found[name].quiet:
                save_tuning(found[name], candidates, header)
    return found


def _measured(candidates: Candidates, models: Mapping[str, Model]) -> Tuning:
    tunings = (
        measure_settings(part, models[part.ways[0].library], _BUDGET_S) for part in candidates.libraries
    )
    return join_tunings(tunings, candidates.ways[0])


def _question_s(tuning: Tuning) -> float:
    times = (trial.question_s for trial in tuning.trials if trial.settings == tuning.settings)
    return next(times, inf)  # a measurement that was given up has none
