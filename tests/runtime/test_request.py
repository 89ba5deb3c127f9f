"""Options and requests: what is refused, how many answers are sampled, and when their majority is certain."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.errors import RequestError, shorten
from thirteen.runtime.answer import Timings, Usage
from thirteen.runtime.options import Effort, Options, Request, VotingRule, majority_certainty, vote_confidence


def test_invalid_options_name_the_field_and_the_value():
    """Some raised TypeError in the compute thread, which failed all requests."""
    for field, value in (
        *(("temperature", -0.1), ("temperature", float("nan")), ("temperature", 10**400), ("top_k", 1.5)),
        *(("temperature", "hot"), ("top_k", -1), ("min_p", 1.5), ("seed", -1), ("max_tokens", True)),
        *(("top_k", True), ("top_k", 2**31), ("top_p", 1.1), ("min_p", -0.5), ("seed", 2**32 - 1)),
        *(("repeat_penalty", 0), ("presence_penalty", "high"), ("frequency_penalty", 101)),
        *(("repeat_last_n", -2), ("logit_bias", [1]), ("logit_bias", {"1": 1}), ("logit_bias", {1: 101})),
        *(("stop", (5,)), ("stop", 5), ("stop", b"x"), ("stop", ["a", ""]), ("max_tokens", 0)),
        *(("logprobs", 21), ("namespace", ["a"]), ("adapter", ["a"]), ("system", 5), ("think", "off")),
        *(("think_budget", -1), ("effort", "Low"), ("effort", 1), ("min_confidence", 1)),
    ):
        with pytest.raises(RequestError, match=f"^{field} must ") as caught:
            Options(**{field: value})
        assert f"not {shorten(value)}" in str(caught.value)


def test_any_sequence_of_integers_is_a_prompt():
    """A list, as Model.tokenize() returns, ended the compute thread and with it all requests."""
    for tokens in ([1, 2, 3], range(1, 4), np.arange(1, 4)):
        request = Request(tokens)
        assert request.tokens == (1, 2, 3) and set(map(type, request.tokens)) == {int}
    for other in ((1, 2.0), "ab", 7):
        with pytest.raises(RequestError, match="must be a sequence of integers"):
            Request(other)


def test_decode_throughput_excludes_the_first_token():
    timings = Timings(prefill_s=2.0, first_token_s=3.0, decode_s=4.0)
    for usage, rates in ((Usage(10, 9), [5, 2]), (Usage(10, 1), [5, 0]), (Usage(0, 0), [0, 0])):
        assert [*timings.token_rates(usage).values()] == rates
    assert [*Timings(0.0, 0.0, 0.0).token_rates(Usage(10, 9)).values()] == [0, 0]


@pytest.mark.parametrize(
    ("given", "temperature", "top_k"),
    [({"top_k": 5}, 0.7, 5), ({"temperature": 1.0, "top_k": 1}, 0.7, 40), ({"temperature": 0.5}, 0.5, 40)],
)
def test_samples_of_a_vote_can_differ(given, temperature, top_k):
    """With a top_k of 1 all were the same text, and agreed."""
    options = Options(**given).stochastic
    assert (options.temperature, options.top_k, options.greedy) == (temperature, top_k, False)


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
