"""A quick benchmark ends in time, whatever the machine does."""

from time import perf_counter

import pytest
from thirteen.bench.accuracy.accuracy import AccuracyRequest
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.prompts import PromptSettings
from thirteen.bench.environment import ModelSource
from thirteen.bench.quick import quick_accuracy, quick_latency
from thirteen.models.passages import HELD_OUT_SUMS

pytestmark = pytest.mark.slow


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
