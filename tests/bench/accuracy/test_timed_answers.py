"""Questions asked one at a time: order, what is timed, and the file from which a run resumes."""

import json
from functools import partial

import pytest
from thirteen.bench.accuracy.run_config import PromptSettings
from thirteen.bench.accuracy.timed_answers import TimedAnswer, TimedAnswers, read_or_time, time_answers
from thirteen.errors import RequestError
from thirteen.files.progress import no_progress
from thirteen.runtime.engine.engine import Engine

SETTINGS = PromptSettings(threads=1, max_tokens=5)
QUESTIONS = [f"What is {n} + {n}?" for n in range(6)]
TIMES = TimedAnswers("2026-11-26", None, ((TimedAnswer(0.1, 0.2, 3),), (TimedAnswer(0.1, 0.3, 4, 1.5),)))


class FakeMeter:
    """Always measures 2 joules."""

    source, min_duration_s = "fake", 0.0

    def joules(self, work):
        work()
        return 2.0


class SlowMeter(FakeMeter):
    min_duration_s = 1e6


@pytest.fixture
def loaders(tiny, lora):
    load = partial(Engine, tiny, threads=1, context=256, slots=2, untrusted=False)
    return [load, partial(load, adapter=lora)]


def test_both_models_are_asked_the_same_questions_in_their_order(loaders):
    """Six questions take two rounds of four; what is asked twice is left out."""
    ticks = []
    times = time_answers(loaders, QUESTIONS, SETTINGS, lambda *tick: ticks.append(tick), FakeMeter())
    base, adapted = times.models
    assert len(base) == len(adapted) == 6 and times.meter == "fake"
    assert ticks[0][1] == ticks[-1][0] == ticks[-1][1] == len(ticks)
    assert all(one.prefill_s > 0 and one.decode_s >= 0 and one.joules == 2.0 for one in (*base, *adapted))
    with loaders[0]() as engine:
        expected = [
            engine.submit(*SETTINGS.sample_requests(engine, question)).answer().usage.completion_tokens
            for question in QUESTIONS
        ]
    assert [one.tokens for one in base] == expected


def test_the_tokens_of_all_votes_count_and_a_meter_that_is_too_slow_does_not(loaders):
    voting = PromptSettings(threads=1, max_tokens=5, votes=3)
    (model,) = time_answers(loaders[:1], QUESTIONS[:1], voting, no_progress, SlowMeter()).models
    assert 5 < model[0].tokens <= 15 and model[0].joules is None


def test_a_question_that_does_not_fit_is_an_error(loaders):
    with pytest.raises(RequestError, match="the context holds 256"):
        time_answers(loaders[:1], ["a" * 300], SETTINGS, no_progress)


def test_times_are_read_again(tmp_path):
    path, identity = tmp_path / "times.jsonl", {"records": ["base", "adapted"], "questions": [1]}
    assert read_or_time(path, identity, lambda: TIMES) == TIMES
    assert read_or_time(path, identity, pytest.fail) == TIMES
    first, _ = path.read_text().splitlines()
    path.write_text(f'{first}\n{{"date": ')  # killed while it wrote
    assert read_or_time(path, identity, lambda: TIMES) == TIMES
    with pytest.raises(RequestError, match=r"another run: questions is \[1\] in the file, \[2\] now"):
        read_or_time(path, identity | {"questions": [2]}, pytest.fail)


TIME = {"prefill_s": 0.1, "decode_s": 0.2, "tokens": 3, "joules": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": None}, "models: None should be a valid array"),
        ({"models": []}, r"\[\] questions by model, not \[1, 1\]"),
        ({"models": [[]]}, r"\[0\] questions by model, not \[1, 1\]"),
        ({"models": [[TIME], [TIME, TIME]]}, r"\[1, 2\] questions by model, not \[1, 1\]"),
        (
            {"models": [[TIME | {"prefill_s": "x"}]]},
            r"models\[0\]\[0\]: prefill_s: 'x' should be a valid number",
        ),
        ({"models": [[TIME | {"prefill_s": 0}]]}, r"models\[0\]\[0\]: prefill_s: 0 should be greater than 0"),
        ({"models": [[TIME | {"decode_s": -1.0}]]}, r"models\[0\]\[0\]: decode_s: -1.0 should be greater"),
        ({"models": [[TIME | {"decode_s": 10**400}]]}, r"decode_s: 10{58}… should be a finite number"),
        ({"models": [[TIME | {"decode_s": float("nan")}]]}, "has a number that is NaN or infinite"),
        ({"models": [[TIME | {"tokens": 0}]]}, r"tokens: 0 should be greater"),
        ({"date": 7}, "date: 7 should be a valid string"),
    ],
)
def test_damaged_times_are_refused_in_one_line(change, message, tmp_path):
    """They ended in numpy's errors, or in figures that are not numbers."""
    path, identity = tmp_path / "times.jsonl", {"records": ["base", "adapted"], "questions": [1]}
    read_or_time(path, identity, lambda: TIMES)
    first, line = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(line) | change)}\n")
    with pytest.raises(RequestError, match=rf"times\.jsonl: line 2: .*{message}") as raised:
        read_or_time(path, identity, pytest.fail)
    assert "\n" not in str(raised.value)
