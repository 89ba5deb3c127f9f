"""Metrics of an evaluation: how often answers of a given confidence are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.bench.accuracy.accuracy_metrics import calibrate
from thirteen.bench.accuracy.eval_log import Outcome, QuestionRecord, Sample


def record(confidence, right):
    outcome = Outcome.CORRECT if right else Outcome.WRONG
    return QuestionRecord(0, "1", "1", outcome, (Sample("1", outcome, True, 5, "1"),), confidence=confidence)


def test_a_calibrated_model_has_no_error_and_a_sure_wrong_one_has_all():
    exact = [record(0.75, right) for right in (True, True, True, False)]
    assert calibrate(exact).error == 0
    assert calibrate([record(1.0, False)]).error == 1
    assert calibrate([record(0.0, False), record(1.0, True)]).error == 0


def test_opposite_errors_of_two_bins_do_not_cancel():
    assert calibrate([record(0.9, False), record(0.1, True)]).error == pytest.approx(0.9)


def test_the_curve_has_the_answers_that_are_given():
    found = calibrate([record(0.95, True), record(0.85, True), record(0.82, False), record(0.3, False)])
    by_minimum = {one.min_confidence: one for one in found.curve}
    assert (by_minimum[0.0].given, by_minimum[0.0].right.estimate) == (1, 0.5)
    assert (by_minimum[0.8].given, by_minimum[0.8].right.estimate) == (0.75, pytest.approx(2 / 3))
    assert (by_minimum[0.9].given, by_minimum[0.9].right.estimate) == (0.25, 1)
    assert calibrate([record(0.2, True)]).curve[-1].right is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_the_error_is_a_probability_and_fewer_answers_are_given_with_a_higher_minimum(answers):
    found = calibrate([record(*answer) for answer in answers])
    assert 0 <= found.error <= 1
    shares = [one.given for one in found.curve]
    assert shares[0] == 1 and shares == sorted(shares, reverse=True)
