"""McNemar's test and the intervals of proportions, against what defines them and published examples."""

from fractions import Fraction
from math import comb, isclose, sqrt

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thirteen.stats.intervals import mcnemar, paired_difference, wilson_interval

COUNTS = st.integers(0, 500)


def naive(gained, lost):
    """Every fall that is at most as likely as the one seen, in exact fractions."""
    total = gained + lost
    chances = [Fraction(comb(total, heads), 2**total) for heads in range(total + 1)]
    return float(sum(chance for chance in chances if chance <= chances[gained]))


@pytest.mark.parametrize("total", [0, 1, 2, 7, 24, 61])
def test_the_p_value_is_that_of_the_definition(total):
    for gained in range(total + 1):
        assert isclose(mcnemar(gained, total - gained), naive(gained, total - gained), rel_tol=1e-12)


def test_thousands_of_questions_are_neither_slow_nor_out_of_range():
    assert mcnemar(2_600, 2_400) == pytest.approx(0.0049, rel=0.02)
    assert mcnemar(5_000, 0) == 0  # below the smallest float


@pytest.mark.parametrize(("part", "whole"), [(0, 50), (1, 50), (25, 50), (50, 50), (577, 1319)])
def test_the_bounds_are_where_the_part_is_1_96_deviations_away(part, whole):
    found = wilson_interval(part, whole)
    assert found.estimate == part / whole
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    for bound in {found.low, found.high} - {0.0, 1.0}:
        deviation = sqrt(bound * (1 - bound) / whole)
        assert abs(bound - part / whole) / deviation == pytest.approx(1.959964, rel=1e-6)


def test_the_difference_is_that_of_the_published_examples():
    for counts, low, high in (
        ((36, 12, 2, 0), 0.0569, 0.3404),  # R. Newcombe, 1998, with a negative correlation
        ((1, 7, 1, 12), 0.026, 0.507),  # M. Fagerland et al., BMC Medical Research Methodology 14:19, 2014
    ):
        found = paired_difference(*counts)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@example(0, 0, 220, 0)  # the lower bound was -1.0000000000000002
def test_the_difference_is_the_same_in_reverse_and_never_a_point(both, gained, lost, neither):
    if both + gained + lost + neither:
        there, back = (
            paired_difference(both, gained, lost, neither),
            paired_difference(both, lost, gained, neither),
        )
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
        assert -1 <= there.low < there.high <= 1 and there.low <= there.estimate <= there.high
