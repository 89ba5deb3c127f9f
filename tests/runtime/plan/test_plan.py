"""Plans with the real library: an engine allocates what its plan says."""

import json

import pytest
from thirteen.errors import RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.native.bindings import llama_cpp
from thirteen.runtime.plan import measurement
from thirteen.runtime.plan.options import PROFILES
from thirteen.runtime.plan.plan import EnginePlan

from ..fixed_settings import FIXED

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_answers(smollm2, name):
    with Engine(smollm2, profile=name, threads=1) as engine:
        settings = engine.plan.settings
        assert PROFILES[name].items() <= {one: getattr(settings, one) for one in PROFILES[name]}.items()
        assert settings.kv in ("f16", "bf16", "q8_0") and settings.flash_attention in (True, False)
        assert engine._runner._context.settings == settings and engine.context == settings.context
        assert engine.answer(QUESTION, max_tokens=4).usage.completion_tokens == 4


def test_a_plan_is_printable_and_has_what_is_given(tiny):
    plan = EnginePlan.make(tiny, profile="phone", slots=3, adapters={}, queue=5, **FIXED)
    settings = plan.settings
    assert (settings.slots, settings.kv, settings.batch, settings.repack) == (3, "f16", 64, False)
    assert settings.context == plan.context_trained < PROFILES["phone"]["context"]
    found = json.loads(json.dumps(plan.json))
    assert found["settings"]["slots"] == 3 and found["queue"] == 5
    assert found["memory"]["total_bytes"] == plan.memory.total_bytes
    assert str(tiny) in str(plan) and "flash attention, KV cache in f16" in str(plan)


def test_a_plan_with_a_saved_choice_loads_nothing(tiny, monkeypatch, tmp_path):
    """And an engine loads once: the memory of a loaded model was asked for twice."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    loaded, load = [], llama_cpp.llama_model_load_from_file
    monkeypatch.setattr(
        llama_cpp, "llama_model_load_from_file", lambda *args: loaded.append(1) or load(*args)
    )
    first = EnginePlan.make(tiny, threads=1)
    assert len(loaded) == 1  # and measured
    monkeypatch.setattr(measurement, "measure_settings", None)
    assert EnginePlan.make(tiny, threads=1) == first and len(loaded) == 1
    with Engine(first) as engine:
        assert len(loaded) == 2 and engine.plan is first
    with pytest.raises(TypeError, match="Engine\\(\\) takes no 'slots' beside a plan"):
        Engine(first, slots=2)


@pytest.mark.parametrize(
    "invalid", [{"profile": "tablet"}, {"context": "many"}, {"prefix_bytes": -1}, {"slots": 513}]
)
def test_invalid_values_are_rejected_before_the_file_is_read(invalid, tmp_path):
    with pytest.raises(RequestError, match=next(iter(invalid))):
        Engine(tmp_path / "missing.gguf", **invalid)
