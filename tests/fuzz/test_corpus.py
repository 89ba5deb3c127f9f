"""The corpus of every fuzz target, without the fuzzer: each input is accepted or refused as it should be.

An input that `make fuzz` has found belongs into the corpus once its bug is mended.
"""

import pytest

from .target import corpus, load_target, run, run_traced, target_names

FILES_MAX = 16  # of a target; a campaign finds the others itself


@pytest.mark.parametrize("name", target_names())
def test_every_input_keeps_to_the_limits_and_both_outcomes_occur(name: str) -> None:
    """A corpus whose inputs are all refused would leave the fuzzer at the door."""
    target = load_target(name)
    inputs = [path.read_bytes() for path in corpus(name)]
    assert len(inputs) <= FILES_MAX and max(map(len, inputs)) <= target.max_bytes
    assert {run(target, data) for data in inputs} == {True, False}
    for data in inputs:
        run_traced(target, data)
