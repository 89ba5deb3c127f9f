"""Bases that store their token embedding a second time as their output."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from peft import LoHaConfig, LoraConfig
from thirteen.convert.convert import convert
from thirteen.convert.merged_checkpoint import merge_checkpoint
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.recipe import Like, Recipe, Same, Uniform
from thirteen.convert.tensors import TensorPlan
from thirteen.convert.write import write_gguf
from thirteen.files.gguf.header import read_header

from .peft_adapters import base_tensors, load, merged_tensors, peft_merged, read_gguf, save_random_adapter

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
F32 = GGMLQuantizationType.F32


@pytest.fixture
def stored_twice(base, tmp_path):
    """stored_twice(embedding, output): one matrix in both types; `change` is added to its last rows."""
    tied = tmp_path / "tied.gguf"
    convert(Recipe(base("llama"), tied, Uniform("F32")))
    header, arrays = read_header(tied), read_gguf(tied)

    def write(embedding: str, output: str, change: float = 0.0, rows_changed: int = 0) -> Path:
        path = tmp_path / f"{embedding}-{output}.gguf"
        types = dict.fromkeys(arrays, F32)
        types |= {EMBEDDING: GGMLQuantizationType[embedding], OUTPUT: GGMLQuantizationType[output]}
        rows = arrays | {OUTPUT: arrays[EMBEDDING].copy()}
        rows[OUTPUT][-rows_changed:] += np.float32(change)
        blocks = {name: quantize_rows(rows[name], type_, name) for name, type_ in types.items()}
        plans = [
            TensorPlan(name, name, rows[name].shape, types[name], len(block))
            for name, block in blocks.items()
        ]
        write_gguf(path, header.fields, plans, blocks.values())
        return path

    return write


def test_equal_matrices_are_stored_once(stored_twice, base, tmp_path):
    report = convert(Recipe(stored_twice("F32", "F32"), tmp_path / "out.gguf", Uniform("Q8_0")))
    assert OUTPUT not in read_header(tmp_path / "out.gguf").tensors
    (warning,) = report.warnings
    assert "are one matrix, in F32 and F32: it is stored once, which saves 69,632 bytes" in warning
    convert(Recipe(base("llama"), tmp_path / "expected.gguf", Uniform("Q8_0")))
    expected, found = read_gguf(tmp_path / "expected.gguf"), read_gguf(tmp_path / "out.gguf")
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


@pytest.mark.parametrize(("embedding", "output"), [("Q5_0", "Q8_0"), ("F32", "F16")])
def test_of_two_that_differ_by_rounding_the_one_with_more_bits_stays(
    stored_twice, tmp_path, embedding, output
):
    path = stored_twice(embedding, output)
    report = convert(Recipe(path, tmp_path / "tied.gguf", Same()))
    assert any(f"one matrix, in {embedding} and {output}: it is stored once" in w for w in report.warnings)
    tensors, stored = read_header(tmp_path / "tied.gguf").tensors, read_header(path).tensors
    larger = max((EMBEDDING, OUTPUT), key=lambda name: stored[name].nbytes)
    assert OUTPUT not in tensors and tensors[EMBEDDING].type is stored[larger].type
    assert np.array_equal(read_gguf(tmp_path / "tied.gguf")[EMBEDDING], read_gguf(path)[larger])


@pytest.mark.parametrize("rows_changed", [0, 1])
def test_another_matrix_is_not_tied(stored_twice, base, tmp_path, rows_changed):
    """Only a sample of the rows was compared, so trained rows were lost."""
    changed = stored_twice("Q5_0", "Q8_0", change=1.0, rows_changed=rows_changed)
    for path in (changed, base("llama untied")):
        report = convert(Recipe(path, tmp_path / "a.gguf"))
        assert not any("stored once" in warning for warning in report.warnings)
        assert OUTPUT in read_header(tmp_path / "a.gguf").tensors


def with_one_matrix(folder: Path, to: Path) -> Path:
    """A copy of a folder that stores one matrix twice."""
    shutil.copytree(folder, to)
    model = load(to)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    model.save_pretrained(to)
    return to


@pytest.fixture
def untied(base, tmp_path):
    return with_one_matrix(base("llama untied"), tmp_path / "untied")


def test_a_family_that_needs_both_keeps_both(base, tmp_path):
    """llama.cpp found no output matrix in the file."""
    report = convert(Recipe(with_one_matrix(base("olmo2"), tmp_path / "olmo2"), tmp_path / "out.gguf"))
    assert not any("stored once" in warning for warning in report.warnings)
    assert np.array_equal(*(read_gguf(tmp_path / "out.gguf")[name] for name in (EMBEDDING, OUTPUT)))


def test_a_merge_stores_both_and_the_base_is_quantized_like_a_file_with_both(untied, tmp_path):
    """The config.json that a merge copies says that they are two; its output matrix was missing."""
    adapters = [
        save_random_adapter(untied, LoraConfig(r=2, target_modules=[module]), tmp_path / module)
        for module in ("q_proj", "lm_head")
    ]
    merge_checkpoint(untied, adapters[0], tmp_path / "merged")
    assert np.array_equal(*(base_tensors(one)["lm_head.weight"] for one in (untied, tmp_path / "merged")))
    convert(Recipe(untied, tmp_path / "adapted.gguf", Uniform("Q8_0"), adapter=adapters[1]))
    convert(Recipe(untied, tmp_path / "alike.gguf", Like(tmp_path / "adapted.gguf")))
    assert OUTPUT in read_header(tmp_path / "alike.gguf").tensors


@pytest.mark.parametrize("kind", [LoraConfig, LoHaConfig])
def test_a_matrix_that_the_adapter_changes_is_not_tied(untied, tmp_path, kind):
    """The base was tied before the adapter was read, which was then refused."""
    convert(Recipe(untied, tmp_path / "base.gguf"))
    assert OUTPUT not in read_header(tmp_path / "base.gguf").tensors
    config = kind(r=2, target_modules=["lm_head", "q_proj"])
    adapter = save_random_adapter(untied, config, tmp_path / "adapter")
    report = convert(Recipe(untied, tmp_path / "out.gguf", Uniform("F32"), adapter=adapter))
    assert not any("stored once" in warning for warning in report.warnings)
    written = merged_tensors(tmp_path / "out.gguf")
    for name, values in peft_merged(untied, adapter).items():
        np.testing.assert_allclose(written[name], values, rtol=1e-5, atol=1e-6)


def test_an_adapter_that_peft_merges_leaves_a_base_to_tie(stored_twice, base, tmp_path):
    """That the two matrices differ by rounding was taken for a change by the adapter."""
    source, config = stored_twice("Q8_0", "F16"), LoHaConfig(r=2, target_modules=["q_proj"])
    adapter = save_random_adapter(base("llama untied"), config, tmp_path / "adapter")
    report = convert(Recipe(source, tmp_path / "out.gguf", Uniform("F16"), adapter=adapter))
    assert any("it is stored once" in warning for warning in report.warnings)
    assert OUTPUT not in read_header(tmp_path / "out.gguf").tensors
    assert np.array_equal(read_gguf(tmp_path / "out.gguf")[EMBEDDING], read_gguf(source)[OUTPUT])
