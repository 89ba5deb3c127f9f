"""Answers: more agreement makes an answer surer, and below the minimum it has no value."""

from dataclasses import replace

import pytest
from thirteen.runtime.answer import Answer, StopReason, Timings, Usage, VoteTally, with_confidence

ONE = Answer("4", "The answer is 4.", StopReason.END, Usage(1, 1), Timings(0, 0, 0), (), verified=False)


def confidence(*votes, grounded=False):
    tally = VoteTally(8, sum(votes), {str(at): count for at, count in enumerate(votes)})
    return with_confidence(replace(ONE, tally=tally, grounded=grounded), 0).confidence


def test_agreement_and_grounding_make_an_answer_surer():
    assert 0 < confidence(2) < confidence(3) < confidence(8) < 1
    assert confidence(3, 1) < confidence(3)
    assert confidence(3, grounded=True) > confidence(3)
    tally = VoteTally(8, 8, {"4": 8})
    for useless in ({"value": None}, {"stop_reason": StopReason.LENGTH}):
        assert with_confidence(replace(ONE, tally=tally, **useless), 0).confidence is None


def test_without_a_calibration_there_is_no_confidence_and_no_minimum_is_reached():
    assert with_confidence(ONE, 0) == ONE
    unsure = with_confidence(ONE, 0.1)
    assert (unsure.value, unsure.sure, unsure.confidence) == (None, False, None)


@pytest.mark.parametrize(("minimum", "sure"), [(0.0, True), (0.2, True), (0.9, False)])
def test_below_the_minimum_an_answer_has_no_value(minimum, sure):
    answer = with_confidence(replace(ONE, confidence=0.5), minimum)
    assert (answer.sure, answer.value, answer.text) == (sure, "4" if sure else None, ONE.text)
