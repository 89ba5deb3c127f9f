"""Conversion with the types of another file, tensor by tensor, as the fidelity check makes its base."""

from contextlib import nullcontext

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Like, Same, Uniform
from thirteen.convert.recipe import Recipe
from thirteen.convert.tensors import TensorSpec, plan_stored
from thirteen.errors import FileError

from .peft_adapters import read_gguf, save_random_adapter
from .test_merge import lora


def test_base_with_types_of_adapted_file_equals_base_converted_to_that_type(base, tmp_path):
    plain, adapted, alike = (tmp_path / f"{part}.gguf" for part in ("plain", "adapted", "alike"))
    convert(Recipe(base("llama long"), plain, Uniform("Q4_K")))
    adapter = save_random_adapter(base("llama long"), lora(2, 4), tmp_path / "adapter")
    convert(Recipe(base("llama long"), adapted, Uniform("Q4_K"), adapter=adapter))
    convert(Recipe(base("llama long"), alike, Like(adapted)))
    assert alike.read_bytes() == plain.read_bytes() != adapted.read_bytes()


def test_the_types_of_a_file_with_rope_factors_are_kept(base, tmp_path):
    """It ended in a KeyError: no base stores the factors, which are computed."""
    convert(Recipe(base("llama long"), tmp_path / "plain.gguf", Uniform("Q4_K")))
    convert(Recipe(tmp_path / "plain.gguf", tmp_path / "same.gguf", Same()))
    plain, same = (read_gguf(tmp_path / f"{name}.gguf") for name in ("plain", "same"))
    assert "rope_freqs.weight" in plain and plain.keys() == same.keys()
    assert all(np.array_equal(plain[name], values) for name, values in same.items())


@pytest.mark.parametrize(("other", "name"), [("llama untied", "output.weight"), ("llama wide", "blk")])
def test_file_with_other_tensors_is_refused(other, name, base, tmp_path):
    convert(Recipe(base(other), tmp_path / "other.gguf", Uniform("Q8_0")))
    with pytest.raises(FileError, match=rf"other\.gguf: another model: only one .* '{name}"):
        convert(Recipe(base("llama"), tmp_path / "alike.gguf", Like(tmp_path / "other.gguf")))
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


@pytest.mark.parametrize(("shape", "type_", "planned"), [((8,), "BF16", "F32"), ((8, 8), "F64", None)])
def test_a_type_of_another_writer_is_checked(shape, type_, planned):
    """A vector in BF16 was a ValueError, and a matrix in F64 ended the process."""
    spec, types = TensorSpec("x", "x", shape), GGMLQuantizationType
    with nullcontext() if planned else pytest.raises(FileError, match="'x' is in F64, which cannot"):
        assert plan_stored(spec, types[type_]).type is types[planned or "F32"]
