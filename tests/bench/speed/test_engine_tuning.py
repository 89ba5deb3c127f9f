"""Tuning of engines: measured with a real model, and used by the next engine."""

import pytest
from rich.console import Console
from thirteen.bench.speed import engine_tuning
from thirteen.bench.speed.engine_tuning import engine_tuning_table, run_engine_tuning, save_tuning
from thirteen.errors import ModelFileError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.attention import AttentionTimes
from thirteen.runtime.threads import default_threads

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("standard", [True, False])
def test_what_was_found_is_used_by_the_next_engine(tiny, tmp_path, monkeypatch, standard):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    seconds = iter(
        [(1, 2), (5, 2), (5, 3), (5, 4), (1, 9)] if standard else [(2, 1), (1, 3), (1, 4), (2, 1), (1, 5)]
    )
    monkeypatch.setattr(engine_tuning, "measure_attention", lambda *_: AttentionTimes(*next(seconds)))
    tuning = run_engine_tuning(tiny, rounds=1)
    assert tuning.flash_attention is not standard
    assert {path.parent for path in save_tuning(tuning, tiny)} == {tmp_path}
    assert default_threads() == tuning.threads.best
    with Engine(tiny) as engine:
        assert engine.profile.flash_attention is not standard
    console = Console(width=120)
    with console.capture() as capture:
        console.print(engine_tuning_table(tuning))
    assert f"attention: {'standard' if standard else 'flash'};" in capture.get()


def test_a_real_measurement_has_both_times(tiny):
    tuning = run_engine_tuning(tiny, rounds=1)
    assert tuning.attention.flash_s > 0 and tuning.attention.standard_s > 0


def test_a_bad_file_is_rejected(not_a_model):
    with pytest.raises(ModelFileError):
        run_engine_tuning(not_a_model, rounds=1)
