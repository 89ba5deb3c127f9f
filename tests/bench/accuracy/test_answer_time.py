"""Time to a right answer: figures by hand, intervals on simulated runs whose ratio is known."""

import numpy as np
import pytest
from thirteen.bench.accuracy.answer_time import (
    AnsweredQuestion,
    TimedAnswer,
    describe_times,
    summarize_times,
    time_rows,
)
from thirteen.stats import bootstrap
from thirteen.stats.interval import Interval


def answered(right, tokens):
    return [AnsweredQuestion(bool(one), count) for one, count in zip(right, tokens, strict=True)]


def test_the_figures_are_those_by_hand():
    """One token takes 0.02 s in decode, the first 0.5 s; of four questions three and one are right."""
    base = [TimedAnswer(0.4, 2.0, 100), TimedAnswer(0.6, 4.0, 200)]
    adapted = [TimedAnswer(0.5, 1.0, 50), TimedAnswer(0.5, 1.0, 50)]
    questions = [answered([1, 0, 0, 0], [100, 200, 300, 400]), answered([1, 1, 1, 0], [50] * 4)]
    times = summarize_times([base, adapted], questions)
    assert (times.timed, times.questions) == (2, 4)
    assert times.base.tokens == 250 and times.adapted.tokens == 50
    assert times.base.prefill_s == pytest.approx(0.5) and times.base.decode_s == pytest.approx(5.0)
    assert times.adapted.seconds == pytest.approx(1.5)
    assert times.base.right_per_minute == pytest.approx(60 * 0.25 / 5.5)
    assert times.adapted.right_per_minute == pytest.approx(60 * 0.75 / 1.5)
    assert times.right_ratio.estimate == pytest.approx(30 / (60 * 0.25 / 5.5))
    assert times.tokens_ratio.estimate == pytest.approx(0.2)
    assert times.seconds_ratio.estimate == pytest.approx(1.5 / 5.5)
    rows = {row[0].strip(): row[1:] for row in time_rows(times)}
    assert rows["seconds a question"][:2] == ("5.50", "1.50")
    assert rows["prefill"] == ("0.50", "0.50", "") and rows["decode"] == ("5.00", "1.00", "")
    assert rows["right answers a minute"][2] == f"{times.right_ratio.text(2)} times"
    line = describe_times(times, Interval(-0.03, 0.015, 0.06))
    low, high = (f"{bound:.3g}" for bound in (times.right_ratio.low, times.right_ratio.high))
    assert line == (
        f"right answers a minute: 11 times the base's ({low} to {high}), accuracy +1.5 points (-3.0 to +6.0)"
    )


def test_one_model_has_no_ratios():
    times = summarize_times([[TimedAnswer(0.5, 1.0, 50)]], [answered([1, 0], [50, 50])])
    assert times.base is times.right_ratio is times.tokens_ratio is times.seconds_ratio is None
    assert times.adapted.right_per_minute == pytest.approx(20)
    assert all(len(row) == 2 for row in time_rows(times))


def test_without_a_right_answer_there_is_no_ratio_of_right_answers():
    one = [TimedAnswer(0.5, 1.0, 50)]
    times = summarize_times([one, one], [answered([0, 0], [50, 50]), answered([1, 0], [9, 9])])
    assert times.right_ratio is None and times.seconds_ratio.estimate < 1
    assert times.base.right_per_minute == 0 < times.adapted.right_per_minute
    assert "no ratio, as a model has none right" in describe_times(times, Interval(0, 0.5, 1))


def test_a_resample_without_a_right_answer_has_a_finite_ratio():
    one = [TimedAnswer(0.5, 1.0, 50)]
    right = answered([1] + [0] * 9, [50] * 10), answered([1, 1] + [0] * 8, [50] * 10)
    ratio = summarize_times([one, one], right).right_ratio
    assert 0 < ratio.low < ratio.estimate < ratio.high < 100 and ratio.estimate == pytest.approx(2)


@pytest.mark.exhaustive
def test_the_interval_covers_the_true_ratio(monkeypatch):
    """Of 100 questions 40 and 50 in 100 are right, in 200 and 80 tokens, at 0.02 s a token."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 2000)
    random, covered = np.random.default_rng(5), 0
    true = (0.5 / (0.5 + 0.02 * 80)) / (0.4 / (0.5 + 0.02 * 200))
    for _ in range(100):
        models, seconds = [], []
        for share, tokens in ((0.4, 200), (0.5, 80)):
            drawn = random.poisson(tokens * random.uniform(0.5, 1.5, 100)) + 1
            models.append(answered(random.random(100) < share, drawn.tolist()))
            speed = 0.02 * random.normal(1, 0.05, 16)
            seconds.append(
                [TimedAnswer(0.5, s * n, n) for s, n in zip(speed, drawn[:16].tolist(), strict=True)]
            )
        ratio = summarize_times(seconds, models).right_ratio
        covered += ratio.low <= true <= ratio.high
    assert covered >= 88
