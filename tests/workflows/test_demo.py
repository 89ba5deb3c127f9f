"""The demo shows what thirteen numbers change; its latency is measured in the tests of bench."""

from thirteen.workflows import demo
from thirteen.workflows.default_model import default_model


def test_more_sums_are_right_with_the_shipped_adapter(monkeypatch, tmp_path):
    """As its card says: 5 % without, 34 % with it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "SUMS", 16)
    base, adapted = (demo.ask_demo(default_model(adapted=adapted)) for adapted in (False, True))
    assert base.right + 2 <= adapted.right <= 16
    assert adapted.answer.value == "7" and adapted.answer.text.endswith(".")
