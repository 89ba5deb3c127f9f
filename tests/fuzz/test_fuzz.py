"""The corpus of every fuzz target without the fuzzer, and what the fuzzer itself relies on.

An input that `make fuzz` has found belongs into the corpus once its bug is mended.
"""

import json
from dataclasses import replace
from random import Random
from time import process_time

import pytest
from thirteen.errors import RequestError

from . import target
from .gguf_mutations import RawField, adapter_file
from .mutators import mutate_gguf, mutate_json
from .target import Target, corpus, load_target, refused, run, run_traced, target_names

FILES_MAX = 16  # of a target; a campaign finds the others itself
ADAPTER = adapter_file()
# A type that is no scalar was a ValueError of the mutator, after 90,000 inputs.
UNKNOWN_ELEMENT = replace(ADAPTER, fields=(RawField(b"pad", 9, [], 4521987),))
JSON_TEXT = json.dumps({"n": 1, "messages": [{"role": "user"}, "a"]}).encode()


@pytest.mark.parametrize("name", target_names())
def test_every_input_keeps_to_the_limits_and_both_outcomes_occur(name):
    """A corpus whose inputs are all refused would leave the fuzzer at the door."""
    target = load_target(name)
    inputs = [path.read_bytes() for path in corpus(name)]
    assert len(inputs) <= FILES_MAX and max(map(len, inputs)) <= target.max_bytes
    assert {run(target, data) for data in inputs} == {True, False}
    for data in inputs:
        run_traced(target, data)


def _spin(data: bytes) -> bool:
    end = process_time() + 0.02
    while process_time() < end:
        pass
    return True


@pytest.mark.parametrize(
    ("check", "run", "error", "message"),
    [
        (lambda data: {}[data], run, KeyError, "a"),
        (_spin, run, AssertionError, "1 bytes took 0.0 s"),
        (lambda data: not bytes(17_000_000), run_traced, AssertionError, "1 bytes took 17"),
        (lambda data: refused(RequestError("two\nlines")), run, AssertionError, "two"),
        (lambda data: refused(RequestError("a" * 1001)), run, AssertionError, "1001 characters"),
    ],
    ids=["another error", "time", "memory", "lines", "length"],
)
def test_what_must_be_a_finding_is_one(check, run, error, message, monkeypatch):
    monkeypatch.setattr(target, "SECONDS_MAX", 0.01)
    with pytest.raises(error, match=message):
        run(Target(check), b"a")


@pytest.mark.parametrize(
    ("mutate", "data", "is_format"),
    [
        (mutate_gguf, ADAPTER.encode(), lambda one: one.startswith(b"GGUF")),
        (mutate_gguf, UNKNOWN_ELEMENT.encode(), lambda one: one.startswith(b"GGUF")),
        (mutate_json, JSON_TEXT, lambda one: one.count(b"[") + one.count(b"{") > 500 or json.loads(one) != 0),
    ],
    ids=["GGUF", "GGUF of an unknown type", "JSON"],
)
def test_mutations_depend_on_the_seed_and_keep_the_format(mutate, data, is_format):
    mutated = [mutate(data, Random(seed), ("stop",)) for seed in range(40)]
    assert mutated == [mutate(data, Random(seed), ("stop",)) for seed in range(40)]
    assert len({*mutated, data}) > 20 and sum(map(is_format, mutated)) > 30
    assert mutate(data[:-1][:20], Random(13)) == b"", "left to the fuzzer"
