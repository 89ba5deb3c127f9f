"""The demo answers first, and its table shows what the adapters bring."""

from pathlib import Path

import pytest


@pytest.mark.exhaustive  # a minute
def test_the_demo_answers_and_compares(thirteen, tmp_path, monkeypatch):
    """The card of the default adapter reports 27 % of sums right without it and 90 % with it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    done = thirteen("demo")
    assert done.status == 0 and "\nTom has 12 + 6 = 18 eggs.\n" in done.stdout, done
    assert "1 sum checked" in done.stderr and "thirteen chat" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 200
    report = thirteen("demo", "--json").json
    base, thirteen_numbers, best = report["models"]
    assert (thirteen_numbers["adapter_bytes"], best["adapter_bytes"]) == (26, 1680)
    assert base["right"] <= thirteen_numbers["right"] + 3 < best["right"] and best["right"] >= 18
    assert best["seconds"] < base["seconds"]
    assert all(Path(model["file"]).stat().st_size == model["file_bytes"] for model in report["models"])
