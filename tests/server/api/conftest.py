"""Fixtures of the tests of the HTTP APIs."""

from collections.abc import Callable

import pytest
from thirteen.runtime.engine import dispatcher

from ..tool_model import ScriptedSampler


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """say(text, …): let the model say these texts, one for each round, the last for all others."""
    monkeypatch.setattr(dispatcher, "Sampler", ScriptedSampler)
    return lambda *texts: monkeypatch.setattr(ScriptedSampler, "scripts", [*texts])
