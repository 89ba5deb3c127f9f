"""The interval of a paired difference: published examples, its symmetry, and its coverage by enumeration."""

from itertools import product
from math import comb

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from thirteen.stats.paired_difference import paired_difference

COUNTS = st.integers(0, 500)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # R. Newcombe, 1998, with a negative correlation
        ((1, 7, 1, 12), 0.026, 0.507),  # M. Fagerland et al., BMC Medical Research Methodology 14:19, 2014
    ],
)
def test_it_is_that_of_the_published_examples(counts, low, high):
    found = paired_difference(*counts)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@example(0, 0, 220, 0)  # the lower bound was -1.0000000000000002
def test_it_is_the_same_in_reverse_and_never_a_point(both, gained, lost, neither):
    if both + gained + lost + neither:
        there, back = (
            paired_difference(both, gained, lost, neither),
            paired_difference(both, lost, gained, neither),
        )
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
        assert -1 <= there.low < there.high <= 1 and there.low <= there.estimate <= there.high


@pytest.mark.parametrize(("gain", "loss"), [(0.05, 0.0), (0.2, 0.1)])
def test_it_covers_the_true_difference(gain, loss):
    """Of 20 questions, half of which both models answer but for the gains and losses; over all outcomes."""
    both, neither = 0.5 - loss, 0.5 - gain
    covered, total = 0.0, 20
    for gained, lost, right in product(range(total + 1), repeat=3):
        wrong = total - gained - lost - right
        if wrong < 0:
            continue
        chance = comb(total, gained) * comb(total - gained, lost) * comb(total - gained - lost, right)
        chance *= gain**gained * loss**lost * both**right * neither**wrong
        found = paired_difference(right, gained, lost, wrong)
        covered += chance * (found.low <= gain - loss <= found.high)
    assert covered > 0.94
