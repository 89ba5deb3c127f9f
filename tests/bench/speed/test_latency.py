"""Latency from files to report. Nothing here depends on the speed of the machine."""

from math import isfinite

import numpy as np
import pytest
from thirteen.bench.harness.interleave import ITERATIONS_PER_ROUND, compare, count_iterations, interleave
from thirteen.bench.memory.roofline import decode_bytes
from thirteen.bench.speed.latency import LatencyRequest, latency_table, run_latency
from thirteen.bench.speed.questions import QuestionShape
from thirteen.errors import FileError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.quality.workload import random_prompt, time_answers
from thirteen.runtime.engine.engine import Engine

pytestmark = pytest.mark.slow

SHAPES = tuple(QuestionShape(*tokens) for tokens in ((6, 4), (6, 9), (20, 4), (250, 6), (250, 7)))


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def report(tiny, lora, ticks):
    """A report of questions, of which the last is longer than the model's context of 256."""
    request = LatencyRequest(base=tiny, adapted=tiny, adapter=lora, threads=1, questions=SHAPES[::-1])
    return run_latency(request, lambda done, total: ticks.append((done, total)))


class FakeModel:
    """A model that only records the calls."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __call__(self):
        return self

    def __enter__(self):
        self.calls.append(f"load {self.name}")
        return self

    def __exit__(self, *_):
        self.calls.append(f"close {self.name}")


def test_two_models_alternate_abba_with_the_same_numbers_and_are_loaded_for_each_round():
    calls, ticks = [], []
    models = [FakeModel(name, calls) for name in ("a", "b")]
    tasks = [lambda model, number, task=task: calls.append(f"{task} {model.name}{number}") for task in "xy"]
    results = interleave(models, tasks, 2, lambda: ticks.append(1))
    assert calls == [
        *("load a", "load b", "x a4", "x b4", "x a0", "x b0", "x b1", "x a1"),
        *("y a0", "y b0", "y b1", "y a1", "close b", "close a"),
        *("load b", "load a", "x b4", "x a4", "x a2", "x b2", "x b3", "x a3"),
        *("y a2", "y b2", "y b3", "y a3", "close a", "close b"),
    ]
    assert [[len(iterations) for iterations in models] for models in results] == [[4, 4], [4, 4]]
    assert len(ticks) == count_iterations(2, 2, 2)


def test_a_report_has_every_figure_of_both_models(report, tiny, lora):
    middle = report.middle
    assert middle == report.questions[2]
    measurements = (middle.prefill, middle.first_token, middle.decode)
    assert [measurement.unit for measurement in measurements] == ["tokens/s", "s", "tokens/s"]
    for measurement in measurements:
        base, adapted, ratio = measurement.base, measurement.adapted, measurement.ratio
        assert len(base) == len(adapted) == ITERATIONS_PER_ROUND * 8
        assert all(value > 0 and isfinite(value) for value in (*base, *adapted))
        assert measurement.base_median == pytest.approx(np.median(base))
        assert ratio.low <= ratio.estimate <= ratio.high
    assert report.base.sha256 == report.adapted.sha256
    assert report.base.file_bytes == tiny.stat().st_size
    assert report.base.adapter is None
    assert report.adapted.adapter.path == str(lora)
    assert report.adapted.total_bytes == tiny.stat().st_size + lora.stat().st_size
    assert report.base.bits_per_weight == pytest.approx(32)
    assert len(report.verdict) >= len(SHAPES)


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_ratio_is_of_the_fastest_iteration_of_each_round(tokens):
    """A disturbance of one iteration in a round is no difference between the models."""
    seconds = np.ones((2, 8, ITERATIONS_PER_ROUND))
    seconds[0, ::2, 0] = seconds[1, 1::3, 1] = 1.7
    measurement = compare(seconds.reshape(2, -1), tokens)
    assert (measurement.ratio.low, measurement.ratio.high) == (1.0, 1.0)
    assert max(measurement.base) > min(measurement.base)


def test_the_time_to_an_answer_is_that_of_its_first_token_and_of_its_decode(report):
    assert [question.shape for question in report.questions] == list(SHAPES[:-1])
    for question in report.questions:
        shape = question.shape
        assert len(question.answer.base) == ITERATIONS_PER_ROUND * 8
        for side in ("base", "adapted"):
            first_token, decode, prefill, answer = (
                np.array(getattr(getattr(question, name), side))
                for name in ("first_token", "decode", "prefill", "answer")
            )
            assert first_token == pytest.approx(shape.prompt_tokens / prefill)
            assert answer == pytest.approx(first_token + (shape.answer_tokens - 1) / decode)


def test_the_table_shows_each_length_once_and_the_roofline(report, tiny, lora):
    """At each length the longest answer counts."""
    weights, adapter = (decode_bytes(read_header(path)) for path in (tiny, lora))
    roofline, decode = report.roofline, report.by_length[0].decode
    assert (roofline.depth, roofline.base_bytes, roofline.adapted_bytes) == (6, weights, weights + adapter)
    assert roofline.base_fraction == pytest.approx(weights * decode.base_median / roofline.bandwidth)
    assert report.by_length == report.questions[1:]
    table = latency_table(report)
    rows = {name: cells for name, *cells in table.rows}
    assert table.title == "tiny.gguf vs tiny.gguf + lora.gguf"
    assert list(rows) == [
        *(f"time to an answer, {one.shape} tokens, s" for one in report.questions),
        *(
            name
            for tokens in (6, 20, 250)
            for name in (
                f"prefill {tokens}, tokens/s",
                f"first token after {tokens}, ms",
                f"decode after {tokens}, tokens/s",
            )
        ),
        *("decode after 6, % of the memory roofline", "load, once, s", "start to first token, s"),
        *("  file not in the cache, s", "peak memory, MB", "file, MB", "bits per weight"),
    ]
    assert rows["file, MB"][0] == f"{tiny.stat().st_size / 1e6:.1f}"


def test_a_question_longer_than_the_context_is_skipped_with_a_line(report, tiny):
    assert report.verdict[-1] == "skipped, longer than the context of 256 tokens: 250 + 7 tokens"
    assert set(report.verdict) < set(latency_table(report).notes)
    with pytest.raises(RequestError, match=r"no question is measured; skipped, .*: 250 \+ 7 tokens"):
        run_latency(LatencyRequest(base=tiny, adapted=tiny, questions=SHAPES[-1:]))


@pytest.mark.parametrize(("tokens", "name"), [((0, 9), "prompt_tokens"), ((9, 1), "answer_tokens")])
def test_a_question_or_an_answer_that_is_too_short_is_refused(tokens, name):
    with pytest.raises(RequestError, match=f"bench: {name} must be an integer of at least"):
        QuestionShape(*tokens)


def test_progress_reaches_its_total(report, ticks):
    total = 2 + count_iterations(2, 3, 8)
    assert ticks == [(done, total) for done in range(1, total + 1)]


def test_a_shorter_answer_is_the_beginning_of_a_longer_one(tiny):
    with Engine(tiny, context=64, slots=1, threads=1) as engine:
        first, short, long = time_answers(engine, (5, 6, 7), (1, 4, 20))  # asserts that it got all 20 tokens
        assert engine.load.running == engine.load.waiting == 0
    assert 0 < first < short < long


def test_random_prompts_depend_on_the_number_only_and_have_no_control_tokens(tiny):
    with Engine(tiny, context=64, slots=1, threads=1) as engine:
        first, again, other = (random_prompt(engine.model, number, 500) for number in (1, 1, 2))
        assert first == again != other
        assert not set(first) & set(engine.model.control_tokens.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 7}, "rounds must be an integer of at least 8"),
        ({"threads": 0}, "threads"),
        ({"questions": (QuestionShape(250, 7),)}, "longer than the context of 256 tokens"),
    ],
)
def test_numbers_out_of_range_are_refused(tiny, change, message):
    with pytest.raises(RequestError, match=message):
        run_latency(LatencyRequest(base=tiny, adapted=tiny, **({"questions": SHAPES[:1]} | change)))


def test_a_file_that_is_not_a_model_is_refused_as_either_model(tiny, not_a_model):
    for models in ((not_a_model, tiny), (tiny, not_a_model)):
        with pytest.raises(FileError, match=r"no\.gguf"):
            run_latency(LatencyRequest(base=models[0], adapted=models[1]))
