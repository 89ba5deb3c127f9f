"""Plans with the real library: an engine allocates what its plan says."""

import json

import pytest
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine_options import PROFILES, EngineOptions
from thirteen.runtime.llama.llama_cpp_library import llama_cpp
from thirteen.runtime.plan import EnginePlan

from .fixed_settings import FIXED

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"


def test_a_plan_is_printable_and_has_what_is_given(tiny):
    options = EngineOptions(profile="phone", slots=3, adapters={}, queue=5, **FIXED)
    plan = EnginePlan.make(tiny, options)
    settings = plan.settings
    assert (settings.slots, settings.kv, settings.batch, settings.repack) == (3, "f16", 64, False)
    assert settings.context == plan.context_trained < PROFILES["phone"]["context"]
    found = json.loads(json.dumps(plan.json))
    assert found["settings"]["slots"] == 3 and found["queue"] == 5
    assert found["memory"]["total_bytes"] == plan.memory.total_bytes
    assert str(tiny) in str(plan) and "flash attention, KV cache in f16" in str(plan)


@pytest.mark.parametrize("library", ["llama.cpp", "auto"])
def test_a_plan_loads_and_measures_nothing(library, tiny, monkeypatch, tmp_path):
    """A first answer waited for a measurement; with a second library, for its proof."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        for name in ("llama_model_load_from_file", "llama_init_from_model"):
            patch.setattr(llama_cpp, name, None)
        plan = EnginePlan.make(tiny, EngineOptions(threads=1, untrusted=False, library=library))
    with Engine(plan) as engine:
        assert engine.plan is plan
    with pytest.raises(TypeError, match="Engine\\(\\) takes no 'slots' beside a plan"):
        Engine(plan, slots=2)
