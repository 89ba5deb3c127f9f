"""Options and requests: what is refused, and what follows from them."""

import numpy as np
import pytest
from thirteen.errors import RequestError, shorten
from thirteen.runtime.answer import Timings, Usage
from thirteen.runtime.options import Options, Request


def test_invalid_options_name_the_field_and_the_value():
    """Some raised TypeError in the compute thread, which failed all requests."""
    for field, value in (
        *(("temperature", -0.1), ("temperature", float("nan")), ("temperature", 10**400), ("top_k", 1.5)),
        *(("top_k", True), ("top_k", 2**31), ("top_p", 1.1), ("min_p", -0.5), ("seed", 2**32 - 1)),
        *(("repeat_penalty", 0), ("presence_penalty", "high"), ("frequency_penalty", 101)),
        *(("repeat_last_n", -2), ("logit_bias", [1]), ("logit_bias", {"1": 1}), ("logit_bias", {1: 101})),
        *(("stop", (5,)), ("stop", 5), ("stop", b"x"), ("stop", ["a", ""]), ("max_tokens", 0)),
        *(("logprobs", 21), ("namespace", ["a"]), ("adapter", ["a"]), ("system", 5), ("think", "off")),
        *(("think_budget", -1), ("effort", "extreme"), ("min_confidence", 1)),
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
    options = Options(**given).stochastic
    assert (options.temperature, options.top_k, options.greedy) == (temperature, top_k, False)
