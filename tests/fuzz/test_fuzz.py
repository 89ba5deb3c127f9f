"""The corpus of every fuzz target without the fuzzer.

An input that `make fuzz` has found belongs into the corpus once its bug is fixed.
"""

import pytest

from .target import corpus, load_target, run, run_traced, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_input_keeps_to_the_limits_and_both_outcomes_occur(name):
    """A corpus whose inputs are all refused would leave the fuzzer at the door."""
    target = load_target(name)
    inputs = [path.read_bytes() for path in corpus(name)]
    assert {run(target, data) for data in inputs} == {True, False}
    for data in inputs:
        run_traced(target, data)
