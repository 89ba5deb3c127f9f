"""The demo shows the effect of thirteen parameters; latency is tested with bench."""

from pathlib import Path

import pytest
from thirteen.cli.main import app
from thirteen.workflows import demo

_TABLE = demo.demo_table


@pytest.mark.exhaustive  # 30 seconds
def test_the_demo_answers_first_and_names_its_stages(monkeypatch, tmp_path, capsys):
    """The adapter's card reports 5 % of sums right without it and 34 % with it."""
    reports: list[demo.DemoReport] = []
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "SUMS", 16)
    monkeypatch.setattr(demo, "TIMED", 4)
    monkeypatch.setattr(demo, "demo_table", lambda report: reports.append(report) or _TABLE(report))
    app(["demo"], standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"question: {demo.QUESTION}\nanswer:   You have 3 + 4 = 7 apples.\n")
    stages = [line for line in printed.err.splitlines() if ":" not in line]
    assert stages == ["1/3 merge and quantize", "2/3 answer 16 sums", "3/3 time 4 sums"]
    (report,) = reports
    base, adapted, times = report.base, report.adapted, report.answer_time
    assert base.right + 2 <= adapted.right <= 16
    assert adapted.answer.value == "7" and adapted.answer.text.endswith(".")
    assert adapted.right == sum(one.right for one in adapted.sums) and len(adapted.sums) == 16
    assert times.timed == 4 and times.questions == 16 and times.base
    assert times.adapted.right_per_minute > times.base.right_per_minute
    assert times.adapted.tokens <= demo.MAX_TOKENS
    assert all(path in printed.out and Path(path).exists() for path in (base.path, adapted.path))
