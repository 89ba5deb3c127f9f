"""The corpus of every fuzz target without the fuzzer, and the mutations that the fuzzer relies on.

An input that `make fuzz` has found belongs into the corpus once its bug is fixed.
"""

import json
from random import Random

import pytest
from thirteen.errors import RequestError

from .gguf_mutations import adapter_file
from .mutators import mutate_gguf, mutate_json
from .target import corpus, load_target, refused, run, run_traced, target_names

ADAPTER = adapter_file()
JSON_TEXT = json.dumps({"n": 1, "messages": [{"role": "user"}, "a"]}).encode()


@pytest.mark.parametrize("name", target_names())
def test_every_input_keeps_to_the_limits_and_both_outcomes_occur(name):
    """A corpus whose inputs are all refused would leave the fuzzer at the door."""
    target = load_target(name)
    inputs = [path.read_bytes() for path in corpus(name)]
    assert {run(target, data) for data in inputs} == {True, False}
    for data in inputs:
        run_traced(target, data)


@pytest.mark.parametrize("message", ["two\nlines", "a" * 1001])
def test_a_refusal_that_is_no_short_line_is_a_finding(message):
    with pytest.raises(AssertionError):
        refused(RequestError(message))


@pytest.mark.parametrize(
    ("mutate", "data"), [(mutate_gguf, ADAPTER.encode()), (mutate_json, JSON_TEXT)], ids=["GGUF", "JSON"]
)
def test_mutations_depend_on_the_seed(mutate, data):
    mutated = [mutate(data, Random(seed), ("stop",)) for seed in range(40)]
    assert mutated == [mutate(data, Random(seed), ("stop",)) for seed in range(40)]
    assert len({*mutated, data}) > 20 and all(mutated)
    assert mutate(data[:-1][:20], Random(13)) == b"", "left to the fuzzer"
