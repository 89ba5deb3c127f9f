"""A/A test on a tiny model that is slowed by far more than any noise."""

import json
from dataclasses import asdict
from functools import partial
from io import StringIO
from time import perf_counter

import numpy as np
import pytest
from rich.console import Console
from thirteen.bench.harness.interleave import count_iterations, duration, throughput
from thirteen.bench.harness.workload import Workload, load_engine
from thirteen.bench.speed import aa_test
from thirteen.bench.speed.slowed_engine import SlowedContext, SlowedEngine
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.llama.context import ContextParams, Span
from thirteen.runtime.llama.model import Model

pytestmark = pytest.mark.slow

FEW = {"runs": 2, "slowdown": 10.0, "rounds": 8, "workload": Workload(32, 4, threads=1)}


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def report(tiny, ticks):
    return aa_test.run_aa_test(tiny, progress=lambda done, total: ticks.append((done, total)), **FEW)


def test_the_slowdown_is_detected_in_every_ratio(report):
    assert [coverage.name for coverage in report.slowed] == ["decode", "first token", "prefill"]
    for coverage in report.slowed:
        assert (coverage.containing, coverage.slower) == (0, FEW["runs"]), coverage
        assert all(interval.excludes_one for interval in coverage.intervals)
    assert sum("in 2 of 2 runs: ok" in line for line in report.verdict[1:]) == 3


def test_every_run_of_both_comparisons_has_an_interval(report):
    for coverage in (*report.itself, *report.slowed):
        assert len(coverage.intervals) == FEW["runs"]
        assert coverage.containing == sum(not interval.excludes_one for interval in coverage.intervals)
        assert coverage.slower <= FEW["runs"] - coverage.containing


def test_progress_reaches_its_total(ticks, report):
    total = 2 * count_iterations(2, 1, FEW["rounds"]) * report.runs
    assert ticks == [(done, total) for done in range(1, total + 1)]


def test_the_report_converts_to_json_and_a_table(report):
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["slowdown"] == 10.0
    console = Console(width=140, file=StringIO())
    console.print(aa_test.aa_test_table(report))
    shown = console.file.getvalue()
    assert "decode, slowed 10 times" in shown and "prefill" in shown
    assert all(line in " ".join(shown.split()) for line in report.verdict)


def test_slower_is_a_lower_speed_and_a_longer_time():
    seconds = np.array([np.full(16, 1.0), np.full(16, 1.05)])
    for measure in (partial(throughput, 1), duration):
        assert aa_test._is_slower(measure(seconds))
        assert not aa_test._is_slower(measure(seconds[::-1]))


@pytest.mark.parametrize(("count", "word"), [(95, "ok"), (94, "too few")])
def test_the_verdict_depends_on_the_share_of_runs(count, word):
    assert f"{count} of 100 runs: {word} " in aa_test._check("it", count, aa_test.COVERAGE_MIN, 100)


def test_a_slowed_context_takes_longer_and_computes_the_same(tiny):
    params = ContextParams(64, 1, 64, 1, outputs=1)
    took = []
    with Model(tiny) as model, SlowedContext(model, params) as context:
        rows = []
        for slowdown in (1.0, 1000.0):
            context.slowdown = slowdown
            start = perf_counter()
            (row,) = context.decode([Span(0, 0, tuple(range(40)), rows=1)])
            took.append(perf_counter() - start)
            rows.append(context.logits_row(row).copy())
            context.clear(0)
    assert took[1] > 20 * took[0]
    assert np.array_equal(*rows)


def test_a_slowed_engine_answers(tiny):
    def make(path, **options):
        return SlowedEngine(path, slowdown=2.0, **options)

    with load_engine(tiny, None, Workload(8, 4, 1), make=make) as engine:
        assert engine.answer("What is 1 + 1?", max_tokens=2).usage.completion_tokens <= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs must be an integer of at least 1"),
        ({"rounds": 7}, "rounds must be an integer of at least 8"),
        ({"slowdown": 1.0}, "slowdown must be above 1 and at most 10, not 1"),
        ({"slowdown": float("nan")}, "slowdown must be above 1"),
        ({"workload": Workload(300, 4, threads=1)}, "do not fit the 256"),
    ],
)
def test_numbers_out_of_range_are_refused(tiny, change, message):
    with pytest.raises(RequestError, match=message):
        aa_test.run_aa_test(tiny, **(FEW | change))


def test_a_file_that_is_not_a_model_is_refused(not_a_model):
    with pytest.raises(ModelFileError, match=r"no\.gguf"):
        aa_test.run_aa_test(not_a_model, **FEW)
