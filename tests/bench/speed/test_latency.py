"""The measurement from files to report. Nothing here depends on how fast the machine is."""

import json
from dataclasses import asdict
from io import StringIO
from math import isfinite

import numpy as np
import pytest
from rich.console import Console
from thirteen.bench.harness.interleave import (
    ITERATIONS,
    PERCENTILES,
    count_iterations,
    duration,
    interleave,
    tokens_per_second,
)
from thirteen.bench.harness.iteration import random_prompt, run_iteration
from thirteen.bench.harness.workload import Workload
from thirteen.bench.speed.latency import latency_table, run_latency
from thirteen.bench.speed.length_sweep import ROUNDS
from thirteen.errors import ModelFileError, RequestError
from thirteen.runtime.engine.engine import Engine

FEW = {"threads": 1, "prompt_tokens": 5, "decode_tokens": 3, "rounds": 8, "lengths": (40, 7, 40)}


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def report(tiny, lora, ticks):
    return run_latency(
        tiny, tiny, adapter=lora, progress=lambda done, total: ticks.append((done, total)), **FEW
    )


def printed(report, width):
    console = Console(width=width, file=StringIO())
    console.print(latency_table(report))
    return console.file.getvalue()


class Side:
    """A model that only tells of what it is asked."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __call__(self):
        return self

    def __enter__(self):
        self.calls.append(f"load {self.name}")
        return self

    def __exit__(self, *_):
        self.calls.append(f"close {self.name}")


def test_base_and_adapted_take_turns_abba_with_the_same_numbers_and_are_loaded_for_each_round():
    calls, ticks = [], []
    sides = [Side(name, calls) for name in ("a", "b")]
    works = [lambda side, number, of=of: calls.append(f"{of} {side.name}{number}") for of in ("x", "y")]
    taken = interleave(sides, works, 2, lambda: ticks.append(1))
    assert calls == [
        *("load a", "load b", "x a4", "x b4", "x a0", "x b0", "x b1", "x a1"),
        *("y a0", "y b0", "y b1", "y a1", "close b", "close a"),
        *("load b", "load a", "x b4", "x a4", "x a2", "x b2", "x b3", "x a3"),
        *("y a2", "y b2", "y b3", "y a3", "close a", "close b"),
    ]
    assert [[len(side) for side in of] for of in taken] == [[4, 4], [4, 4]]
    assert len(ticks) == count_iterations(2, 2, 2)


def test_a_report_has_every_figure_of_both_sides(report, tiny, lora):
    measures = (report.prefill, report.first_token, report.decode)
    assert [measure.unit for measure in measures] == ["tokens/s", "s", "tokens/s"]
    for measure in measures:
        assert len(measure.base) == len(measure.adapted) == ITERATIONS * FEW["rounds"]
        assert all(value > 0 and isfinite(value) for value in (*measure.base, *measure.adapted))
        assert measure.base_median == pytest.approx(np.median(measure.base))
        assert measure.ratio.low <= measure.ratio.estimate <= measure.ratio.high
    assert report.base.sha256 == report.adapted.sha256
    assert report.base.file_bytes == tiny.stat().st_size
    assert report.base.adapter is None
    assert report.adapted.adapter.path == str(lora)
    assert report.adapted.total_bytes == tiny.stat().st_size + lora.stat().st_size
    assert report.base.bits_per_weight == pytest.approx(32)
    assert len(report.verdict) == 3 + report.noisy


@pytest.mark.parametrize(
    "of", [lambda seconds: tokens_per_second(1, seconds), duration], ids=["speed", "duration"]
)
def test_a_ratio_is_of_the_quickest_turn_of_each_round(of):
    """What disturbs one of a round's turns is no difference between the sides."""
    seconds = np.ones((2, 8, ITERATIONS))
    seconds[0, ::2, 0] = seconds[1, 1::3, 1] = 1.7
    measure = of(seconds.reshape(2, -1))
    assert (measure.ratio.low, measure.ratio.high) == (1.0, 1.0)
    assert max(measure.base) > min(measure.base)


def test_speeds_fall_due_at_every_length_once_and_in_order(report):
    assert [length.tokens for length in report.lengths] == [7, 40]
    for length in report.lengths:
        for measure in (length.prefill, length.first_token, length.decode):
            assert len(measure.base) == len(measure.adapted) == ITERATIONS * ROUNDS
        assert length.prefill.base_median == pytest.approx(
            length.tokens / length.first_token.base_median, rel=0.5
        )


def test_percentiles_stand_about_the_median(report):
    for measure in (report.prefill, report.first_token, report.decode):
        for values, percentiles in (
            (measure.base, measure.base_percentiles),
            (measure.adapted, measure.adapted_percentiles),
        ):
            assert len(percentiles) == len(PERCENTILES)
            assert list(percentiles) == sorted(percentiles)
            assert min(values) <= percentiles[0] <= np.median(values) <= percentiles[-1] <= max(values)


def test_a_report_goes_to_json_and_back(report):
    plain = asdict(report)
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["decode"]["base"] == list(report.decode.base)
    assert again["machine"]["features"] == list(report.machine.features)
    assert json.dumps(again) == json.dumps(plain)


def test_progress_counts_to_its_total(report, ticks):
    total = 2 + count_iterations(2, 1, FEW["rounds"]) + count_iterations(2, 2, ROUNDS)
    assert ticks == [(done, total) for done in range(1, total + 1)]


def test_a_table_shows_what_was_measured_and_the_verdict(report):
    text = printed(report, 140)
    for row in (
        "prefill 5, tokens/s",
        "first token",
        "decode 3, tokens/s",
        "prefill 40, tokens/s",
        "decode after 40, tokens/s",
        "load, once, s",
        "file not in the cache",
        "peak memory",
        "bits",
    ):
        assert row in text
    assert report.verdict[0] in " ".join(text.split())
    assert "tiny.gguf beside tiny.gguf + lora.gguf" in text
    assert max(map(len, printed(report, 60).splitlines())) <= 60


def test_a_turn_leaves_the_engine_idle_and_ignores_the_end_of_turn(tiny):
    settings = Workload(prompt_tokens=5, decode_tokens=200, threads=1)
    with Engine(tiny, context=settings.context, slots=1, threads=1) as engine:
        turn = run_iteration(engine, 0, settings)  # it asserts that all 200 tokens came
        assert engine.load.running == engine.load.waiting == 0
    assert min(turn.prefill_s, turn.decode_s, turn.first_token_s) > 0
    assert turn.question_tokens > len("What is 100 times 13?")  # a token a byte, and the template's


def test_prompts_repeat_by_number_and_hold_no_control_tokens(tiny):
    with Engine(tiny, context=64, slots=1, threads=1) as engine:
        first, again, other = (random_prompt(engine.model, number, 500) for number in (1, 1, 2))
        assert first == again != other
        assert not set(first) & set(engine.model.control_tokens.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rounds": 7}, "rounds must be a whole number from 8"),
        ({"prompt_tokens": 0}, "prompt_tokens"),
        ({"decode_tokens": 0}, "decode_tokens"),
        ({"threads": 0}, "threads"),
        ({"lengths": (0,)}, "lengths must be a whole number from 1"),
        ({"lengths": range(1, 18)}, "17 of them; at most 16"),
        ({"lengths": (240,)}, "a text of 257 tokens does not fit the 256"),
        ({"prompt_tokens": 250, "decode_tokens": 7}, "250 prompt and 7 decode tokens do not fit the 256"),
    ],
)
def test_numbers_out_of_bounds_are_refused(tiny, change, said):
    with pytest.raises(RequestError, match=said):
        run_latency(tiny, tiny, **(FEW | change))


def test_a_file_that_is_not_a_model_is_refused_on_either_side(tiny, not_a_model):
    for sides in ((not_a_model, tiny), (tiny, not_a_model)):
        with pytest.raises(ModelFileError, match=r"no\.gguf"):
            run_latency(*sides, **FEW)
