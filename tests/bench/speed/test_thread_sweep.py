"""Thread sweep: numbers tried, the best of them, and the saved default."""

import json

import numpy as np
import pytest
from thirteen.bench.speed.thread_sweep import (
    _best,
    _speeds,
    run_thread_sweep,
    thread_counts,
    thread_sweep_table,
)
from thirteen.errors import ModelFileError
from thirteen.runtime import threads
from thirteen.runtime.threads import ThreadCounts, default_threads, save_threads


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr(threads, "usable_processors", lambda: 8)
    monkeypatch.setattr(threads, "physical_cores", lambda: 4)


@pytest.mark.parametrize(
    ("counts", "tried"),
    [((1, 1), (1,)), ((2, 4), (1, 2, 4)), ((4, 8), (1, 2, 3, 4, 8)), ((64, 128), 9)],
)
def test_few_counts_are_tried_and_always_the_cores_and_the_processors(counts, tried):
    found = thread_counts(*counts)
    assert found == tried if isinstance(tried, tuple) else len(found) <= tried
    assert set(counts) <= set(found) and found[0] == 1


def test_the_fastest_is_best_only_where_the_difference_is_significant(monkeypatch):
    monkeypatch.setattr("thirteen.bench.speed.thread_sweep.physical_cores", lambda: 2)
    steady = np.ones((6, 2, 2))
    assert _best(_speeds((1, 2), steady)) == ThreadCounts(2, 2)
    faster = steady.copy()
    faster[:, 0, 1] = 0.9  # seconds of one thread, in decode
    assert _best(_speeds((1, 2), faster)) == ThreadCounts(decode=1, prefill=2)
    noisy = faster.copy()
    noisy[::2, 0, 1] = 1.3
    assert _best(_speeds((1, 2), noisy)) == ThreadCounts(2, 2)


def test_saved_counts_become_the_default():
    assert default_threads() == ThreadCounts(4, 4)
    save_threads(ThreadCounts(decode=3, prefill=8))
    assert default_threads() == ThreadCounts(3, 8)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "7", '{"processors": 8}', '{"processors": 8, "decode": "x", "prefill": 2}'),
        json.dumps({"processors": 4, "decode": 2, "prefill": 2}),
        json.dumps({"processors": 8, "decode": 0, "prefill": 2}),
        json.dumps({"processors": 8, "decode": 9, "prefill": 2}),
    ],
)
def test_counts_saved_on_another_machine_or_malformed_ones_are_ignored(tmp_path, text):
    (tmp_path / "threads.json").write_text(text)
    assert default_threads() == ThreadCounts(4, 4)


@pytest.mark.slow
def test_a_model_is_measured_with_each_count(tiny, not_a_model):
    seen = []
    report = run_thread_sweep(tiny, rounds=1, progress=lambda done, total: seen.append((done, total)))
    assert all(speed.prefill > 0 and speed.decode > 0 for speed in report.speeds)
    assert seen == [(n, len(report.speeds)) for n in range(1, len(report.speeds) + 1)]
    assert thread_sweep_table(report).row_count == len(report.speeds)
    with pytest.raises(ModelFileError):
        run_thread_sweep(not_a_model)
