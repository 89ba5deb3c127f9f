"""The demo shows the effect of thirteen parameters; latency is tested with bench."""

import pytest
from thirteen.workflows import demo
from thirteen.workflows.default_model import default_model


@pytest.mark.exhaustive  # 43 seconds
def test_shipped_adapter_solves_more_sums(monkeypatch, tmp_path):
    """Its card reports 5 % without it and 34 % with it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "SUMS", 16)
    models = [default_model(adapter) for adapter in (None, demo.ADAPTER)]
    base, adapted = answers = [demo.ask_demo(model) for model in models]
    assert base.right + 2 <= adapted.right <= 16
    assert adapted.answer.value == "7" and adapted.answer.text.endswith(".")
    assert adapted.right == sum(one.right for one in adapted.sums) and len(adapted.sums) == 16
    monkeypatch.setattr(demo, "TIMED", 4)
    times = demo.time_demo(models, answers)
    assert times.timed == 4 and times.questions == 16
    assert times.adapted.right_per_minute > times.base.right_per_minute
    assert times.adapted.tokens <= demo.MAX_TOKENS
