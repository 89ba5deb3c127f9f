"""Tuning of engines: measured with a real model, and used by the next engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from thirteen.bench.speed import engine_tuning
from thirteen.bench.speed.engine_tuning import EngineTuning, engine_tuning_table, run_engine_tuning
from thirteen.errors import ModelFileError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.autotune import saved_settings
from thirteen.runtime.llama.compute_settings import ComputeSettings
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.settings_measurement import Trial, Tuning
from thirteen.runtime.profile import PROFILES, Profile

FLASH = ComputeSettings(True, "f16", threads=2, prefill_threads=2, micro_batch=512)
STANDARD = replace(FLASH, flash_attention=False, threads=1, micro_batch=64)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tuning(
    settings: ComputeSettings, seconds: float, slots: int = PROFILES["laptop"].slots, quiet: bool = True
) -> Tuning:
    """A measurement in which other settings take twice the time."""
    other = STANDARD if settings == FLASH else FLASH
    trials = tuple(
        Trial(one, factor * seconds / 10, factor * seconds, factor * slots * seconds)
        for one, factor in ((settings, 1), (other, 2))
    )
    return Tuning(settings, trials, slots, quiet)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """measured(tunings): what the measurements return, in turn."""

    def set_measured(*tunings: Tuning) -> None:
        results = iter(tunings)

        def measure(_: Profile, threads: int | None, __: Model, budget_s: float) -> Tuning:
            assert threads is None and budget_s > 3
            return next(results)

        monkeypatch.setattr(engine_tuning, "measure_settings", measure)

    return set_measured


def shown(report: EngineTuning) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(engine_tuning_table(report))
    return capture.get()


@pytest.mark.parametrize("fastest", [FLASH, STANDARD])
def test_the_fastest_of_all_repeats_is_used_by_the_next_engine(
    tiny: Path, cache: Path, measured: Callable[..., None], fastest: ComputeSettings
) -> None:
    other = STANDARD if fastest == FLASH else FLASH
    measured(tuning(other, 0.02), tuning(fastest, 0.01), tuning(other, 0.03))
    ticks: list[tuple[int, int]] = []
    report, saved = run_engine_tuning(
        tiny, profiles=["laptop"], progress=lambda done, total: ticks.append((done, total))
    )
    assert report.profiles["laptop"].settings == fastest and ticks == [(1, 3), (2, 3), (3, 3)]
    assert [path.parent for path in saved] == [cache] and saved_settings() == [fastest]
    with Engine(tiny) as engine:
        params = engine._runner._context.params
        assert engine.profile.flash_attention is fastest.flash_attention
        assert (params.threads, params.micro_batch) == (fastest.threads, fastest.micro_batch)


def test_each_profile_has_a_result_of_its_own(tiny: Path, measured: Callable[..., None]) -> None:
    measured(*[tuning(FLASH, 0.01)] * 3, *[tuning(STANDARD, 0.01, slots=8)] * 3)
    report, saved = run_engine_tuning(tiny)
    assert [found.settings for found in report.profiles.values()] == [FLASH, STANDARD]
    assert len(saved) == 2
    for profile, settings in (("laptop", FLASH), ("server", STANDARD)):
        with Engine(tiny, profile=profile) as engine:
            assert engine.profile.flash_attention is settings.flash_attention


def test_nothing_is_saved_with_no_keep(tiny: Path, measured: Callable[..., None]) -> None:
    measured(*[tuning(FLASH, 0.01)] * 3)
    _, saved = run_engine_tuning(tiny, profiles=["laptop"], keep=False)
    assert saved == [] and saved_settings() == []


def test_the_table_has_all_trials_and_the_fastest_settings() -> None:
    report = EngineTuning("m", {"laptop": tuning(STANDARD, 0.01), "server": tuning(FLASH, 0.01, 8, False)})
    laptop, server = shown(report).split("profile server")
    assert "profile laptop: tokens/s in an ordinary question" in laptop
    assert "1000.0" in laptop and "100.0" in laptop and "decode, 4 sequences" in laptop
    assert "500.0" in laptop and "50.0" in laptop  # the other settings take twice the time
    assert "1, prefill 2" in laptop and "2, prefill 2" in laptop and "512" in laptop
    words = "fastest: standard f16, 1 threads for decode, 2 for prefill, micro-batch 64"
    assert words in " ".join(laptop.split()) and "disturbed" not in laptop
    words = "fastest: flash f16, 2 threads for decode, 2 for prefill, micro-batch 512"
    assert f"{words}; other programs have disturbed it" in " ".join(server.split())


def test_a_real_measurement_has_times_of_all_ways(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_tuning, "_BUDGET_S", 0.2)
    report, _ = run_engine_tuning(tiny)
    for name, found in report.profiles.items():
        assert found.slots == PROFILES[name].slots
        assert {trial.settings.flash_attention for trial in found.trials} == {True, False}
        assert all(trial.prefill_s > 0 and trial.decode_s > 0 for trial in found.trials)
        assert name in shown(report)


def test_a_bad_file_is_rejected(not_a_model: Path) -> None:
    with pytest.raises(ModelFileError):
        run_engine_tuning(not_a_model)
