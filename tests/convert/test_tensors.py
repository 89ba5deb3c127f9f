"""Types and sizes of planned tensors, and of files as they are asked for."""

from math import prod

import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import quant_shape_to_byte_shape
from thirteen.convert.fit_size import parse_file_size
from thirteen.convert.tensors import GGML_TYPES, TensorSpec, parse_type, plan_uniform
from thirteen.errors import OptionError

# From `tensor_type_fallback` in llama.cpp's src/llama-quant.cpp
IQ4_NL = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS")
Q4_0 = ("Q2_K", "Q3_K", "TQ1_0", "TQ2_0")
FALLBACK = dict.fromkeys(IQ4_NL, "IQ4_NL") | dict.fromkeys(Q4_0, "Q4_0")
FALLBACK |= {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def planned(columns: int, name: str) -> str:
    (plan,) = plan_uniform([TensorSpec("a", "b", (3, columns))], parse_type(name))
    return plan.type.name


@pytest.mark.parametrize("name", GGML_TYPES)
def test_fallback_for_rows_that_blocks_do_not_divide_is_llama_cpps(name):
    unblocked = name in ("F32", "F16", "BF16")
    assert planned(512, name) == name
    assert planned(288, name) == FALLBACK.get(name, name)
    assert planned(100, name) == (name if unblocked else "F16")


@pytest.mark.parametrize("name", GGML_TYPES)
def test_size_equals_the_gguf_packages(name):
    for shape in ((5, 512), (5, 288), (5, 100), (512,)):
        (plan,) = plan_uniform([TensorSpec("a", "b", shape)], GGML_TYPES[name])
        assert plan.nbytes == (
            prod(quant_shape_to_byte_shape(shape, plan.type))
            if plan.type not in (Type.F32, Type.F16)
            else prod(shape) * (4 if plan.type is Type.F32 else 2)
        )
        assert plan.shape == shape
        assert len(shape) == 2 or plan.type is Type.F32


def test_type_names_are_case_insensitive_and_an_unknown_one_lists_all():
    assert parse_type("q4_k") is Type.Q4_K
    with pytest.raises(OptionError, match=r"'Q4_K_M'.*Q4_K, Q4_1"):
        parse_type("Q4_K_M")
    with pytest.raises(OptionError, match=r"'sane': no such type; .* TQ1_0, same; size mixes types$"):
        parse_type("sane", "same")


@pytest.mark.parametrize(
    ("text", "expected"), [("600MB", 600_000_000), ("0.6GB", 600_000_000), ("3.9bpw", 3_900_000)]
)
def test_a_size_is_bytes_or_bits_per_weight(text, expected):
    assert parse_file_size(text).file_bytes(8_000_000) == expected


@pytest.mark.parametrize(
    "text", ["600", "-1MB", "", "MB", "0MB", "nanMB", "infMB", "1e3MB", "33bpw", "6OOMB", "9" * 308 + "GB"]
)
def test_an_invalid_size_is_refused(text):
    with pytest.raises(OptionError, match=r"size '.*': "):
        parse_file_size(text)
