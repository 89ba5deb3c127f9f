"""`bench constrained` on the tiny model: figures of a real run, and their table."""

import pytest
from thirteen.bench.speed.constrained import constrained_table, run_constrained
from thirteen.errors import RequestError


def test_a_run_measures_both_sides_of_each_ratio(tiny):
    seen = []
    report = run_constrained(
        tiny, threads=1, rounds=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (8, 8)
    assert min(report.free, report.constrained, report.sampled_answers, report.forced_answers) > 0
    assert 0.5 < report.forced_fraction < 1, "the keys are forced, the values are not"
    assert report.vocabulary_s > 0 and report.compile_s > 0
    assert constrained_table(report).row_count == 2


def test_rounds_out_of_range_are_refused(tiny):
    with pytest.raises(RequestError, match="rounds"):
        run_constrained(tiny, rounds=0)
