"""The demo shows the effect of thirteen parameters; latency is tested with bench."""

import pytest
from thirteen.workflows import demo
from thirteen.workflows.default_model import default_model


@pytest.mark.slow
def test_shipped_adapter_solves_more_sums(monkeypatch, tmp_path):
    """Its card reports 5 % without it and 34 % with it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "SUMS", 16)
    base, adapted = (demo.ask_demo(default_model(adapted=adapted)) for adapted in (False, True))
    assert base.right + 2 <= adapted.right <= 16
    assert adapted.answer.value == "7" and adapted.answer.text.endswith(".")
