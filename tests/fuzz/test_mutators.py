"""Structured mutations: they differ from their input, keep its format, and depend on nothing but the seed."""

import json
from dataclasses import replace
from random import Random

import pytest

from ..runtime.llama.gguf_mutations import RawField, RawFile, adapter_file, model_file
from .gguf_mutator import mutate_gguf
from .json_mutator import mutate_json

FILES = [model_file("llama"), adapter_file()]


@pytest.mark.parametrize("file", FILES, ids=["model", "adapter"])
def test_a_file_that_is_read_back_is_the_same(file: RawFile) -> None:
    assert RawFile.decode(file.encode()).encode() == file.encode()


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGML" + bytes(20), FILES[1].encode()[:100]])
def test_bytes_that_are_no_gguf_are_left_to_the_fuzzer(data: bytes) -> None:
    assert mutate_gguf(data, Random(13)) == b""


def test_gguf_files_are_changed_by_the_seed() -> None:
    data = FILES[1].encode()
    mutated = [mutate_gguf(data, Random(seed)) for seed in range(20)]
    assert mutated == [mutate_gguf(data, Random(seed)) for seed in range(20)]
    assert len({*mutated, data}) > 15 and sum(one.startswith(b"GGUF") for one in mutated) > 15


@pytest.mark.parametrize("element", [9, 4521987], ids=["arrays", "unknown"])
def test_values_of_a_type_that_is_no_scalar_are_changed(element: int) -> None:
    """The second was a ValueError of the mutator, after 90,000 inputs."""
    file = replace(FILES[1], fields=(RawField(b"pad", 9, [], element),))
    mutated = {mutate_gguf(file.encode(), Random(seed)) for seed in range(60)}
    assert len(mutated) > 20


def test_json_texts_are_changed_by_the_seed_and_stay_json() -> None:
    data = json.dumps({"n": 1, "messages": [{"role": "user"}, "a"]}).encode()
    mutated = [mutate_json(data, Random(seed), ("stop",)) for seed in range(300)]
    assert mutated == [mutate_json(data, Random(seed), ("stop",)) for seed in range(300)]
    assert len({*mutated, data}) > 200
    assert sum(b'"stop"' in one for one in mutated) > 20
    assert any(b"[" * 900 in one for one in mutated), "nesting at the limit of recursion"
    for one in mutated:
        if one.count(b"[") + one.count(b"{") < 500:
            json.loads(one)


def test_bytes_that_are_no_json_are_left_to_the_fuzzer() -> None:
    assert mutate_json(b"{", Random(13)) == b""
