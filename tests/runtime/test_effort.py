"""Effort: how many answers are sampled, and when their majority is certain."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import RequestError
from thirteen.runtime.options import Effort, Options, VotingRule, majority_certainty, vote_confidence

LOW, MEDIUM, HIGH = (effort.rule for effort in Effort)
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


def test_more_is_sampled_while_that_can_reach_the_minimum_of_confidence():
    """It withheld a value that the missing answers could have made sure."""
    for rule, first, second, missing, decided in (
        (MEDIUM.until(0), 2, 0, 6, True),
        (MEDIUM.until(0.8), 3, 0, 5, False),  # two that agree were never sure enough for 0.8
        (MEDIUM.until(0.99), 2, 0, 6, True),  # it can never be so sure
        (HIGH.until(0.78), 5, 1, 3, False),  # 0.773 sure, and 0.82 after three more
        (HIGH.until(0.78), 6, 1, 2, True),
        (HIGH.until(0.1), 5, 1, 3, True),  # less than the vote asks for anyway
    ):
        assert rule.is_decided(first, second, missing) is decided
        assert vote_confidence(3, 0, True) < 0.8 <= vote_confidence(4, 0, True)


def test_a_wave_is_as_many_answers_as_can_decide():
    for rule, first, second, missing, wave in (
        (LOW, 0, 0, 1, 1),
        (MEDIUM, 0, 0, 8, 2),
        (MEDIUM, 1, 1, 6, 3),
        (HIGH, 1, 1, 7, 4),
        (HIGH.until(0.8), 0, 0, 10, 4),
        (VotingRule(8, 8), 0, 0, 8, 8),  # solutions, all of which are wanted
    ):
        assert rule.wave(first, second, missing) == wave


def test_only_a_question_with_a_number_is_voted_on():
    for question, votes in (("Twelve eggs and a dozen more?", True), ("Why is the sky blue?", False)):
        assert Effort.HIGH.for_question(question).votes == votes
        assert not Effort.LOW.for_question(question).votes
    for name in ("Low", "extreme", None, 1):
        with pytest.raises(RequestError, match="effort must be low, medium, high"):
            Options(effort=name)
