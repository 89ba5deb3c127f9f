"""The benchmark put to the test, on a tiny model that is slowed by far more than any noise."""

import json
from dataclasses import asdict
from io import StringIO
from time import perf_counter

import numpy as np
import pytest
from rich.console import Console
from thirteen.bench.harness.interleave import count_iterations, tokens_per_second
from thirteen.bench.harness.workload import Workload, load_engine
from thirteen.bench.speed import aa_test
from thirteen.bench.speed.slowed_engine import SlowedContext, SlowedEngine
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.llama.context import ContextParams, Span
from thirteen.runtime.llama.model import Model

FEW = {"runs": 2, "slowdown": 10.0, "rounds": 8, "prompt_tokens": 32, "decode_tokens": 4, "threads": 1}


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def report(tiny, ticks):
    return aa_test.run_aa_test(tiny, progress=lambda done, total: ticks.append((done, total)), **FEW)


def test_what_is_slowed_is_found_in_every_ratio(report):
    assert [tally.name for tally in report.slowed] == ["decode", "first token", "prefill"]
    for tally in report.slowed:
        assert (tally.containing, tally.slower) == (0, FEW["runs"]), tally
        assert all(interval.excludes_one for interval in tally.intervals)
    assert sum("as it should be" in line for line in report.verdict[1:]) == 3


def test_every_run_of_either_comparison_has_its_interval(report):
    for tally in (*report.itself, *report.slowed):
        assert len(tally.intervals) == FEW["runs"]
        assert tally.containing == sum(not interval.excludes_one for interval in tally.intervals)
        assert tally.slower <= FEW["runs"] - tally.containing


def test_progress_counts_to_its_total(ticks, report):
    total = 2 * count_iterations(2, 1, FEW["rounds"]) * report.runs
    assert ticks == [(done, total) for done in range(1, total + 1)]


def test_a_report_is_json_and_a_table(report):
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["slowdown"] == 10.0
    console = Console(width=140, file=StringIO())
    console.print(aa_test.aa_test_table(report))
    shown = console.file.getvalue()
    assert "decode, each batch 10 times as long" in shown and "prefill" in shown
    assert all(line in " ".join(shown.split()) for line in report.verdict)


def test_slower_is_a_lower_speed_and_a_longer_time():
    slow = tokens_per_second(1, np.array([np.full(16, 1.0), np.full(16, 1.05)]))
    assert aa_test._says_slower(slow)
    assert not aa_test._says_slower(tokens_per_second(1, np.array([np.full(16, 1.05), np.full(16, 1.0)])))


@pytest.mark.parametrize(("count", "said"), [(95, "as it should be"), (94, "too few")])
def test_the_verdict_is_by_the_share_of_runs(count, said):
    assert said in aa_test._judged("something", count, aa_test.CONTAINING_MIN, 100)


def test_a_slowed_context_takes_its_time_again_and_computes_the_same(tiny):
    room = ContextParams(64, 1, 64, 1, outputs=1)
    took = []
    with Model(tiny) as model, SlowedContext(model, room) as context:
        rows = []
        for slowdown in (1.0, 1000.0):
            context.slowdown = slowdown
            began = perf_counter()
            (row,) = context.decode([Span(0, 0, tuple(range(40)), rows=1)])
            took.append(perf_counter() - began)
            rows.append(context.logits_row(row).copy())
            context.clear(0)
    assert took[1] > 20 * took[0]
    assert np.array_equal(*rows)


def test_a_slowed_engine_is_loaded_as_any_other(tiny):
    def make(path, **options):
        return SlowedEngine(path, slowdown=2.0, **options)

    with load_engine(tiny, None, Workload(8, 4, 1), make=make) as engine:
        assert engine.answer("What is 1 + 1?", max_tokens=2).usage.completion_tokens <= 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": 0}, "runs must be a whole number from 1"),
        ({"rounds": 7}, "rounds must be a whole number from 8"),
        ({"slowdown": 1.0}, "slowdown must be above 1 and at most 10, not 1"),
        ({"slowdown": float("nan")}, "slowdown must be above 1"),
        ({"prompt_tokens": 300}, "do not fit the 256"),
    ],
)
def test_numbers_out_of_bounds_are_refused(tiny, change, said):
    with pytest.raises(RequestError, match=said):
        aa_test.run_aa_test(tiny, **(FEW | change))


def test_a_file_that_is_no_model_is_refused(not_a_model):
    with pytest.raises(ModelFileError, match=r"no\.gguf"):
        aa_test.run_aa_test(not_a_model, **FEW)
