"""The demo shows what thirteen numbers change; its latency is measured in the tests of bench."""

from thirteen.default import default_model
from thirteen.demo import SUMS, asked


def test_more_sums_are_right_with_the_shipped_adapter(monkeypatch, tmp_path):
    """As its card says: 5 % without, 34 % with it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    base, adapted = (asked(default_model(adapted=adapted)) for adapted in (False, True))
    assert base.right + SUMS // 10 < adapted.right <= SUMS
    assert adapted.answer.value == "7" and adapted.answer.text.endswith(".")
