"""`thirteen doctor --tune`: measured with a real model, and used by the next engine."""

from dataclasses import replace

import pytest
from thirteen.bench.speed import engine_tuning
from thirteen.bench.speed.engine_tuning import tune_engine
from thirteen.errors import FileError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import library_proof
from thirteen.runtime.llama.model import Model
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.runtime.native.settings import LIBRARIES, Settings
from thirteen.runtime.plan.candidates import Candidates
from thirteen.runtime.plan.measurement import measure_settings
from thirteen.runtime.plan.tuning import Trial, Tuning

from ...runtime.conftest import write_gguf

FLASH = Settings(4096, 4, 512, threads=2)
STANDARD = replace(FLASH, flash_attention=False, threads=1)


@pytest.fixture
def model(monkeypatch, tmp_path):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "tiny.gguf", {}, {})


@pytest.fixture
def measured(monkeypatch):
    """measured(tunings): what the measurements return, in turn."""

    def set_measured(*tunings: Tuning) -> None:
        results = iter(tunings)
        monkeypatch.setattr(engine_tuning, "measure_settings", lambda *_: next(results))

    return set_measured


def tuning(settings: Settings, seconds: float, *, quiet: bool = True) -> Tuning:
    trial = Trial(settings, seconds / 10, seconds, 4 * seconds)
    return Tuning(settings, (trial,), quiet)


def test_the_fastest_of_the_quiet_repeats_is_used_by_the_next_engine(model, measured):
    laptop = (tuning(STANDARD, 0.02), tuning(FLASH, 0.001, quiet=False), tuning(STANDARD, 0.01))
    measured(*[tuning(FLASH, 0.01)] * 3, *laptop, *[tuning(FLASH, 0.01, quiet=False)] * 3)
    ticks: list[tuple[int, int]] = []
    found = tune_engine(model, lambda done, total: ticks.append((done, total)))
    assert found["several answers"] is laptop[2] and not found["batch"].quiet
    assert ticks[-1] == (9, 9)
    for slots, flash, threads in ((1, True, 2), (4, False, 1)):
        with Engine(model, slots=slots) as engine:
            settings = engine.plan.settings
            assert (settings.flash_attention, settings.threads) == (flash, threads)


def test_a_real_measurement_has_times_of_all_ways(model, monkeypatch):
    monkeypatch.setattr(engine_tuning, "_BUDGET_S", 0.2)
    for tuned in tune_engine(model).values():
        assert {trial.settings.flash_attention for trial in tuned.trials} == {True, False}
        assert all(trial.prefill_s > 0 and trial.decode_s > 0 for trial in tuned.trials)


@pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")
@pytest.mark.parametrize("proven", [True, False])
def test_each_library_computes_its_own_ways(proven, model, monkeypatch):
    """The times of a second library were those of llama.cpp with the same settings, and were saved."""
    monkeypatch.delenv("THIRTEEN_LIBRARY")
    measured = set[tuple[str, str]]()

    def measure(candidates: Candidates, loaded: Model, _: float) -> Tuning:
        measured.update((way.library, loaded.library.name) for way in candidates.ways)
        return measure_settings(candidates, loaded, 0.1)

    monkeypatch.setattr(engine_tuning, "measure_settings", measure)
    monkeypatch.setattr(library_proof, "prove_library", lambda *_: "" if proven else "it differs")
    tune_engine(model)
    assert measured == {(name, name) for name in LIBRARIES[: 1 + proven]}


def test_a_bad_file_is_rejected(not_a_model):
    with pytest.raises(FileError):
        tune_engine(not_a_model)
