"""`bench sampler` on the tiny model: figures of a real run, and their table."""

import pytest
from thirteen.bench.speed.sampler_cost import run_sampler_cost, sampler_table
from thirteen.errors import RequestError


def test_every_way_to_choose_is_measured_beside_decode(tiny):
    seen = []
    report = run_sampler_cost(tiny, threads=1, tokens=3, progress=lambda *at: seen.append(at))
    assert seen[-1] == (3, 3)
    assert (report.tokens, report.vocabulary) == (3, 259)
    assert min(report.decode_ms, report.greedy_ms, report.sampled_ms, report.no_digit_ms) > 0
    assert sampler_table(report).row_count == 3


def test_tokens_out_of_range_are_refused(tiny):
    with pytest.raises(RequestError, match="tokens"):
        run_sampler_cost(tiny, tokens=0)
