"""Validation of requests and sampling parameters, and the derived properties of a sequence."""

import re

import numpy as np
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.request import Request, Sampling, SequenceState, StopReason, Timings, Usage


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", -0.1), ("temperature", float("nan")), ("temperature", "hot")),
        *(("temperature", 10**400), ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_k", 2**31)),
        *(("top_p", 0), ("top_p", 1.1), ("min_p", 1), ("min_p", -0.5), ("seed", -1), ("seed", 2**32 - 1)),
        *(("repeat_penalty", 0), ("presence_penalty", "high"), ("frequency_penalty", 101)),
        *(("repeat_last_n", -2), ("logit_bias", [1]), ("logit_bias", {"1": 1}), ("logit_bias", {1: 101})),
    ],
)
def test_invalid_sampling_names_the_field_and_the_value(field, value):
    with pytest.raises(RequestError, match=re.escape(f", not {value!r}")) as caught:
        Sampling(**{field: value})
    assert f"{field} must be " in str(caught.value)


def test_any_sequence_of_integers_is_a_prompt():
    """A list, as Model.tokenize() returns, ended the compute thread and with it all requests."""
    for tokens in ([1, 2, 3], range(1, 4), np.arange(1, 4)):
        request = Request(tokens)
        assert request.tokens == (1, 2, 3) and set(map(type, request.tokens)) == {int}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": (1, 2.0)}, "tokens must be a sequence of integers"),
        ({"tokens": "ab"}, "tokens must be a sequence of integers"),
        ({"tokens": 7}, "tokens must be a sequence of integers"),
        ({"stop": (5,)}, r"stop must be a sequence of strings, not \(5,\)"),
        ({"stop": 5}, "stop must be a sequence of strings, not 5"),
        ({"stop": b"x"}, "stop must be a sequence of strings"),
        *(({"max_tokens": value}, "max_tokens must be an integer of at least 1") for value in (0, 1.5, True)),
        ({"logprobs": 21}, "logprobs must be an integer from 0 to 20, not 21"),
        ({"namespace": ["a"]}, r"namespace must be a string, not \['a'\]"),
        ({"turn": ["a"]}, r"turn must be a string, not \['a'\]"),
        ({"question": 5}, "question must be a string, not 5"),
        ({"adapter": ["a"]}, r"adapter must be a string, not \['a'\]"),
        ({"sampling": {"top_k": 1}}, "sampling must be a Sampling, not"),
    ],
)
def test_values_of_other_types_are_refused(fields, message):
    """They raised TypeError in the compute thread, which failed all requests."""
    with pytest.raises(RequestError, match=f"^request: {message}"):
        Request(**({"tokens": (1,)} | fields))


def test_next_tokens_continue_from_the_prompt_into_the_output():
    sequence = SequenceState(Request((1, 2, 3)), context=9)
    assert (sequence.next_tokens(2), sequence.pending) == ((1, 2), 3)
    sequence.computed, sequence.output = 3, [4]
    assert (sequence.next_tokens(2), sequence.pending) == ((4,), 1)


def test_a_full_context_still_yields_the_token_after_it():
    sequence = SequenceState(Request((1, 2), max_tokens=9), context=3, output=[5])
    assert sequence.remaining == 1
    sequence.output.append(6)
    assert sequence.remaining == 0


def test_the_end_of_generation_token_counts_but_is_not_in_the_output():
    sequence = SequenceState(Request((1, 2)), context=9, output=[5], stop_reason=StopReason.END)
    assert sequence.usage == Usage(2, 2)


def test_decode_throughput_excludes_the_first_token():
    timings, usage = Timings(prefill_s=2.0, first_token_s=3.0, decode_s=4.0), Usage(10, 9)
    assert timings.prefill_tokens_per_s(usage) == 5
    assert timings.decode_tokens_per_s(usage) == 2
    assert timings.decode_tokens_per_s(Usage(10, 1)) == 0


@pytest.mark.parametrize(
    ("given", "temperature", "top_k"),
    [({"top_k": 5}, 0.7, 5), ({"temperature": 1.0, "top_k": 1}, 0.7, 40), ({"temperature": 0.5}, 0.5, 40)],
)
def test_samples_of_a_vote_can_differ(given, temperature, top_k):
    """With a top_k of 1 all were the same text, and agreed."""
    sampling = Sampling(**given).stochastic
    assert (sampling.temperature, sampling.top_k, sampling.greedy) == (temperature, top_k, False)
