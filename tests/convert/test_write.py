"""GGUFs are byte-exact and written atomically."""

import hashlib

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Same, Uniform
from thirteen.convert.tensors import TensorSpec, plan_tensor
from thirteen.convert.write import write_gguf
from thirteen.files.gguf.header import Field, read_header
from thirteen.files.trusted_files import is_trusted, trust_file

from ..runtime.conftest import finish
from ..runtime.conftest import write_gguf as write_foreign

FIELDS = {
    "general.architecture": Field("llama", Kind.STRING),
    "general.name": Field("näme\udcff", Kind.STRING),
    "a.count": Field(7, Kind.UINT32),
    "a.long": Field(-(2**40), Kind.INT64),
    "a.real": Field(0.5, Kind.FLOAT32),
    "a.flag": Field(True, Kind.BOOL),
    "a.tokens": Field(["a", "é", "\udcfe"], Kind.ARRAY, Kind.STRING),
    "a.types": Field([1, -1], Kind.ARRAY, Kind.INT32),
}
SHAPES = {"x.weight": ((3, 64), Type.Q8_0), "x.bias": ((5,), Type.F32), "y.weight": ((2, 256), Type.Q4_K)}
PLANS = [plan_tensor(TensorSpec(name, name, shape), type_) for name, (shape, type_) in SHAPES.items()]
DATA = [np.random.default_rng(1).bytes(plan.nbytes) for plan in PLANS]
BLOCKS = [data[i : i + 50] for data in DATA for i in range(0, len(data), 50)]


def test_file_is_byte_identical_to_the_gguf_packages_without_empty_arrays(tmp_path):
    empty = {"a.none": Field([], Kind.ARRAY, Kind.STRING)}
    sha256 = write_gguf(tmp_path / "ours.gguf", FIELDS | empty, PLANS, BLOCKS)
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    for key, field in list(FIELDS.items())[1:]:
        raw = [field.value] if field.element is not Kind.STRING else field.value
        raw = [text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text for text in raw]
        writer.add_key_value(key, raw if field.element is Kind.STRING else raw[0], field.type, field.element)
    for plan, data in zip(PLANS, DATA, strict=True):
        rows = np.frombuffer(data, np.uint8).reshape(*plan.shape[:-1], -1)
        writer.add_tensor(plan.target, rows, raw_dtype=plan.type)
    finish(writer, tmp_path / "theirs.gguf")
    written = (tmp_path / "ours.gguf").read_bytes()
    assert written == (tmp_path / "theirs.gguf").read_bytes()
    assert sha256 == hashlib.sha256(written).hexdigest()
    assert read_header(tmp_path / "ours.gguf").fields == FIELDS


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("quantization", [Uniform("Q8_0"), Same()])
def test_a_copy_of_a_foreign_file_is_as_trusted_as_that(quantization, trusted, records, tmp_path):
    """Its tokenizer and even its tensors were copied into a file that was loaded without a trial."""
    foreign, ours = write_foreign(tmp_path / "foreign.gguf", {}, {}), tmp_path / "ours.gguf"
    if trusted:
        trust_file(foreign)
    convert(Recipe(foreign, ours, quantization))
    assert is_trusted(ours) is trusted


def test_a_file_from_a_folder_is_trusted(base, records, tmp_path):
    convert(Recipe(base("llama"), tmp_path / "ours.gguf", Uniform("Q8_0")))
    assert is_trusted(tmp_path / "ours.gguf")
