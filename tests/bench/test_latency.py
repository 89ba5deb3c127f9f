"""Latency, memory and size, also quickly and beside llama-cpp-python, whatever the speed of the machine."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import isfinite
from time import perf_counter, sleep

import numpy as np
import pytest
from thirteen.bench.accuracy.accuracy import AccuracyRequest
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompts import PromptSettings
from thirteen.bench.environment import ModelSource
from thirteen.bench.latency import run_latency, speed_sentence
from thirteen.bench.peers import run_peers
from thirteen.bench.program_run import PROGRAMS, run_program
from thirteen.bench.quick import quick_accuracy, quick_latency
from thirteen.bench.rounds import ITERATIONS_PER_ROUND, count_iterations, interleave, summarize, take_in_time
from thirteen.bench.workload import Workload, random_prompt, time_answers
from thirteen.errors import FileError, RequestError
from thirteen.models.passages import HELD_OUT_SUMS
from thirteen.runtime.engine.engine import Engine
from thirteen.stats.intervals import Interval

from ..json_lines import write_rows
from ..runtime.conftest import tensors, write_gguf

pytestmark = pytest.mark.slow

ROUNDS, WORK = 8, Workload(prompt_tokens=20, decode_tokens=3, threads=1)


@pytest.fixture(scope="module")
def report(tiny, lora):
    models, ticks = [ModelSource(tiny), ModelSource(tiny, lora)], []
    report = run_latency(models, WORK, progress=lambda *counts: ticks.append(counts))
    assert ticks[-1] == (len(ticks), 2 + count_iterations(2, ROUNDS)) == (len(ticks),) * 2
    return report


def test_two_models_alternate_abba_with_the_same_numbers_and_are_loaded_for_each_round():
    calls, ticks = [], []

    @contextmanager
    def load(name):
        calls.append(f"load {name}")
        yield name
        calls.append(f"close {name}")

    loaders = [partial(load, name) for name in ("a", "b")]
    results = interleave(
        loaders, lambda name, number: calls.append(f"{name}{number}"), 2, lambda: ticks.append(1)
    )
    assert calls == [
        *("load a", "load b", "a4", "b4", "a0", "b0", "b1", "a1", "close b", "close a"),
        *("load b", "load a", "b4", "a4", "a2", "b2", "b3", "a3", "close a", "close b"),
    ]
    assert [len(iterations) for iterations in results] == [4, 4]
    assert len(ticks) == count_iterations(2, 2)


@pytest.mark.parametrize(("seconds", "taken"), [(-1, {1}), (60, {20}), (0.1, {*range(1, 10)})])
def test_items_are_taken_while_another_fits(seconds, taken):
    number = 0
    for _ in take_in_time(range(20), perf_counter() + seconds):
        number += 1
        sleep(0.01)
    assert number in taken


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_ratio_is_of_the_fastest_iteration_of_each_round(tokens):
    """A disturbance of one iteration in a round is no difference between the models."""
    seconds = np.ones((2, 8, ITERATIONS_PER_ROUND))
    seconds[0, ::2, 0] = seconds[1, 1::3, 1] = 1.7
    measurement = summarize(seconds.reshape(2, -1), tokens)
    assert (measurement.ratio.low, measurement.ratio.high) == (1.0, 1.0)
    assert max(measurement.values[0]) > min(measurement.values[0])


def test_a_report_has_every_figure_of_both_models(report, tiny, lora):
    for measurement in (report.answer, report.first_token, report.prefill, report.decode):
        assert all(len(values) == ITERATIONS_PER_ROUND * ROUNDS for values in measurement.values)
        assert all(value > 0 and isfinite(value) for values in measurement.values for value in values)
        assert measurement.medians == pytest.approx(np.median(measurement.values, axis=1))
    first, prefill, decode, answer = (
        np.array(one.values) for one in (report.first_token, report.prefill, report.decode, report.answer)
    )
    assert first == pytest.approx(20 / prefill)
    assert answer == pytest.approx(first + 3 / decode)
    base, adapted = report.files
    assert base.sha256 == adapted.sha256 and (base.adapter, adapted.adapter) == (None, str(lora))
    assert adapted.total_bytes == tiny.stat().st_size + lora.stat().st_size
    for run in report.memory:
        assert run.peak_bytes > tiny.stat().st_size
        assert 0 < run.first_token_s < run.answer_s and run.load_s > 0


def test_the_report_begins_with_speed_and_size_in_sentences(report):
    speed, size = report.verdict
    assert speed.startswith("Speed: ")
    assert size.startswith("Size: the adapted model has 0.3 MB and takes ")
    assert ", its base 0.3 MB and" in size
    table = report.table()
    assert table.title.startswith("tiny.gguf vs tiny.gguf + lora.gguf: a question of 20 tokens, an answer of")
    assert all(len(row) == 4 for row in table.rows)


def test_a_model_alone_has_no_ratio(tiny):
    report = run_latency([ModelSource(tiny)], WORK, rounds=1, until=perf_counter())
    assert report.answer.ratio is None and report.memory == ()
    assert report.verdict[0].startswith("Speed: the model writes ")
    assert {len(row) for row in report.table().rows} == {2}


def test_a_shorter_answer_is_the_beginning_of_a_longer_one_and_prompts_depend_on_the_number_only(tiny):
    with Engine(tiny, context=64, slots=1, threads=1) as engine:
        one, again, other = (random_prompt(engine.model, number, 500) for number in (1, 1, 2))
        assert one == again != other and not set(one) & set(engine.model.control_tokens.values())
        first, short, long = time_answers(engine, (5, 6, 7), (1, 4, 20))  # asserts that it got all 20 tokens
    assert 0 < first < short < long


def test_what_cannot_be_measured_is_refused(tiny, not_a_model):
    refused = {
        r"no\.gguf: not a GGUF": ModelSource(not_a_model),
        r"tiny\.gguf: is a model, not an adapter": ModelSource(tiny, tiny),
    }
    for message, source in refused.items():
        with pytest.raises(FileError, match=message):
            run_latency([source], WORK, rounds=1, until=perf_counter())
    with pytest.raises(RequestError, match="300 prompt and 3 decode tokens do not fit"):
        run_latency([ModelSource(tiny)], replace(WORK, prompt_tokens=300), rounds=1, until=perf_counter())


def test_the_speed_in_a_sentence():
    for ratio, sentence in (
        ((0.84, 0.86, 0.88), "the adapted model writes 86 tokens/s, its base 100: 14 % slower (12 to 16 %)."),
        ((1.02, 1.03, 1.05), "the adapted model writes 103 tokens/s, its base 100: 3 % faster (2 to 5 %)."),
        ((0.98, 1, 1.01), "no difference within 2 %: both write about 100 tokens/s."),
        (
            (0.9, 1, 1.1),
            "no difference within 10 %: both write about 100 tokens/s; more rounds would settle it.",
        ),
    ):
        assert speed_sentence(100, 100 * ratio[1], Interval(*ratio), 8) == f"Speed: {sentence}"


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    """The tiny model, with short answers."""
    embedding = tensors()["token_embd.weight"]
    embedding[258] *= 4  # the end token
    return write_gguf(tmp_path_factory.mktemp("brief") / "tiny.gguf", {}, {"token_embd.weight": embedding})


@pytest.mark.parametrize("adapted", [pytest.param(True, marks=pytest.mark.exhaustive), False])
def test_a_quick_one_says_speed_size_and_right_answers(adapted, thirteen, brief, lora, tmp_path):
    words = ("bench", brief, *(("--adapter", lora) if adapted else ()), "--quick", "--threads", 1)
    found = [line.partition(":")[0] for line in thirteen(*words).output.splitlines()]
    assert found == ["Speed", "Size", "Right answers"]
    rows = ({"question": f"{n} + {n}?", "answer": 2 * n} for n in range(12))
    data = write_rows(tmp_path / "sums.jsonl", rows)
    report = thirteen(*words, "--data", data, "--json").json
    assert report["accuracy"]["adapted"]["scores"]["questions"] == 12
    assert len(report["latency"]["files"]) == 1 + adapted


def test_without_time_it_does_the_least_and_says_so(tiny, lora):
    """It said "about -1 h 59 min", and three rounds of 48 tokens took a slow machine past its minute."""
    models, now = [ModelSource(tiny), ModelSource(tiny, lora)], perf_counter()
    latency = quick_latency(models, 1, now)
    assert (latency.rounds, latency.prompt_tokens, latency.decode_tokens) == (1, 2, 2)
    assert "(1 rounds, 0 % sure)" in latency.verdict[0]
    questions, settings = load_question_set(str(HELD_OUT_SUMS)), PromptSettings(threads=1)
    request = AccuracyRequest(models=models, questions=questions, settings=settings)
    accuracy = quick_accuracy(request, min(latency.decode.medians), now)
    assert accuracy.paired.questions == 1 and accuracy.max_tokens == 1
    assert " of 1 questions of sums (no time for all 48), the base 0: " in accuracy.verdict[0]


def test_with_time_it_measures_more(tiny):
    latency = quick_latency([ModelSource(tiny)], 1, perf_counter() + 100)
    assert (latency.rounds, latency.prompt_tokens, latency.decode_tokens) == (8, 32, 16)


@pytest.mark.exhaustive
def test_each_program_runs_the_file_in_a_process_of_its_own(tiny):
    ticks = []
    report = run_peers(tiny, Workload(16, 4, 1), 2, lambda *n: ticks.append(n))
    assert list(report.runs) == list(PROGRAMS) and ticks[-1] == (6, 6)
    assert list(report.ratios) == list(PROGRAMS)[1:]
    for ratio in report.ratios.values():
        assert ratio.low <= ratio.estimate <= ratio.high
    for run in (run for runs in report.runs.values() for run in runs):
        assert min(run.first_token_s, run.load_s, run.peak_bytes) > 0 and run.answer_s > run.first_token_s
    assert report.verdict[0].startswith("Speed: an answer takes ")
    assert len(report.table().rows) == 3


def test_a_file_that_a_program_cannot_load_is_an_error_with_its_message(not_a_model):
    for program in PROGRAMS:
        with pytest.raises(FileError, match=rf"no\.gguf: {program} ended with status "):
            run_program(program, ModelSource(not_a_model), Workload(4, 2, 1))
