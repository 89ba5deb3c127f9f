"""Effort: how many answers are sampled, and when their majority is certain."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.effort import (
    Effort,
    VotingRule,
    default_effort,
    majority_certainty,
    parse_effort,
    vote_confidence,
)

counts = st.integers(0, 32)


@given(counts, counts)
def test_the_certainty_is_the_beta_posterior(first, second):
    """P(p > 1/2) for p ~ Beta(first + 1, second + 1), as its density is a polynomial that is integrated."""
    terms = [
        (Fraction(comb(second, at) * (-1) ** at, first + at + 1), first + at + 1) for at in range(second + 1)
    ]
    total = sum(factor for factor, _ in terms)
    upper = sum(factor * (1 - Fraction(1, 2**power)) for factor, power in terms)
    assert majority_certainty(first, second) == pytest.approx(float(upper / total))


@given(counts, counts)
def test_more_votes_for_a_value_make_it_more_certain(first, second):
    assert majority_certainty(first + 1, second) > majority_certainty(first, second) or first > 30
    assert majority_certainty(first, second) + majority_certainty(second, first) == pytest.approx(1)


@pytest.mark.parametrize(("effort", "answers"), [(Effort.LOW, 1), (Effort.MEDIUM, 8), (Effort.HIGH, 10)])
def test_the_efforts_sample_up_to_so_many_answers(effort, answers):
    assert effort.rule.answers == answers and effort.rule.width <= 8


@pytest.mark.parametrize(
    ("cost", "effort"), [(None, "low"), (0.53, "medium"), (0.73, "medium"), (0.75, "low")]
)
def test_medium_is_the_default_where_it_takes_less_than_twice_as_long(cost, effort):
    assert default_effort(cost) == effort


@given(counts, counts, counts)
def test_a_vote_is_decided_where_what_is_missing_cannot_change_it(first, second, missing):
    rule = VotingRule(64, certainty=2)
    assert rule.is_decided(first, second, missing) == (first > second + missing)


def test_a_minimum_of_confidence_takes_more_votes():
    """Two that agree were never sure enough for 0.8, and no more were asked for."""
    rule = Effort.MEDIUM.rule
    assert rule.until(0) == rule and rule.is_decided(2, 0, 6)
    sure = rule.until(0.8)
    assert not sure.is_decided(3, 0, 5) and sure.is_decided(4, 0, 4)
    assert vote_confidence(3, 0, True) < 0.8 <= vote_confidence(4, 0, True)
    assert rule.until(0.99).is_decided(2, 0, 6)  # it can never be so sure


@pytest.mark.parametrize(
    ("confidence", "first", "second", "missing", "decided"),
    [
        (0.78, 5, 1, 3, False),  # 0.773 sure, and 0.82 after three more
        (0.78, 6, 1, 2, True),
        (0.78, 4, 2, 1, True),  # never so sure
        (0.99, 5, 0, 4, True),
        (0.1, 5, 1, 3, True),  # less than the vote asks for anyway
        (0.1, 2, 1, 0, True),
    ],
)
def test_a_certain_majority_is_sampled_on_while_it_can_reach_the_minimum(
    confidence, first, second, missing, decided
):
    """It withheld a value that the missing answers could have made sure."""
    assert Effort.HIGH.rule.until(confidence).is_decided(first, second, missing) is decided


@pytest.mark.parametrize("name", ["", "Low", "extreme", None, 1, True])
def test_an_unknown_effort_is_named(name):
    with pytest.raises(RequestError, match="effort must be low, medium, high"):
        parse_effort(name)


@pytest.mark.parametrize(
    ("question", "votes"),
    [
        ("What is 7 times 8?", True),
        ("Twelve eggs and a dozen more?", True),
        ("Why is the sky blue?", False),
        ("", False),
    ],
)
def test_only_a_question_with_a_number_is_voted_on(question, votes):
    assert Effort.HIGH.for_question(question).votes == votes
    assert not Effort.LOW.for_question(question).votes


@pytest.mark.parametrize(
    ("rule", "first", "second", "ended", "wave"),
    [
        (Effort.LOW.rule, 0, 0, 0, 1),
        (Effort.MEDIUM.rule, 0, 0, 0, 2),
        (Effort.MEDIUM.rule, 1, 1, 2, 3),
        (Effort.HIGH.rule, 0, 0, 0, 3),
        (Effort.HIGH.rule, 1, 1, 3, 4),
        (Effort.HIGH.rule, 4, 1, 5, 1),
        (Effort.HIGH.rule, 3, 3, 9, 1),
        (Effort.HIGH.rule.until(0.8), 0, 0, 0, 4),
        (VotingRule(8, 8), 0, 0, 0, 8),  # solutions, all of which are wanted
    ],
)
def test_a_wave_is_as_many_answers_as_can_decide(rule, first, second, ended, wave):
    missing = rule.answers - ended
    assert rule.wave(first, second, missing) == wave
    assert wave == rule.width or rule.is_decided(first + wave, second, missing - wave)
    assert rule.width == rule.answers or not any(
        rule.is_decided(first + n, second, missing - n) for n in range(1, wave)
    )
