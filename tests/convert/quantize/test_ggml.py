"""Quantized bytes are ggml's own and decoded as by gguf; values out of range are refused."""

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from thirteen.convert.quantize.block_codec import block_layout
from thirteen.convert.quantize.ggml import dequantize_rows, quantize_rows
from thirteen.convert.tensors import GGML_TYPES
from thirteen.errors import FileError, OutputError

NEED_IMPORTANCE = ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")


def weights(rows: int = 24, columns: int = 512) -> np.ndarray:
    return np.random.default_rng(13).normal(0, 0.02, (rows, columns)).astype(np.float32)


# ggml takes seconds to make the tables of the types that need importance.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.exhaustive) if n in NEED_IMPORTANCE else n for n in GGML_TYPES]
)
def test_rows_are_dequantized_as_by_gguf(name):
    rows, type_ = weights(4), GGML_TYPES[name]
    importance = np.ones(rows.shape[1], np.float32) if name in NEED_IMPORTANCE else None
    made = quantize_rows(rows, type_, "w", importance)
    data = np.frombuffer(made, np.uint8).reshape(len(rows), -1)
    for chosen in (data, data[1::2]):
        assert np.array_equal(dequantize_rows(chosen, type_), dequantize(chosen, type_))


@pytest.mark.parametrize("name", NEED_IMPORTANCE)
def test_a_type_that_needs_an_importance_matrix_is_refused_without(name):
    with pytest.raises(OutputError, match=rf"w: {name} needs an importance matrix"):
        quantize_rows(weights(), GGML_TYPES[name], "w")


@pytest.mark.parametrize("name", [name for name in GGML_TYPES if name not in NEED_IMPORTANCE])
def test_values_out_of_range_are_refused_and_others_stay_finite(name):
    """Most types scale their blocks by a float16, which overflows to infinity silently."""
    for value in (6e4, 1e30):
        rows = weights(2)
        rows[1, 300] = value
        try:
            made = quantize_rows(rows, GGML_TYPES[name], "w")
        except FileError as failure:
            assert value == 1e30
            assert "more than" in str(failure)
        else:
            back = dequantize(np.frombuffer(made, np.uint8).reshape(2, -1), GGML_TYPES[name])
            assert np.isfinite(back).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
def test_only_ratios_of_the_importance_count(scale):
    """Weights became 0 or NaN."""
    rows = np.random.default_rng(13).standard_normal((4, 256), np.float32)
    importance = np.ones(256, np.float32)
    for type_ in (GGML_TYPES["Q4_K"], GGML_TYPES["IQ4_NL"]):
        one, other = (quantize_rows(rows, type_, "w", importance * np.float32(s)) for s in (1, scale))
        assert one == other


SCALAR = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
SCALAR += ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]


@pytest.mark.parametrize("name", SCALAR)
def test_a_block_is_level_times_scale_plus_offset_and_accepts_other_codes(name):
    type_, random = Type[name], np.random.default_rng(13)
    data = np.frombuffer(quantize_rows(weights(8), type_, "w"), np.uint8).reshape(8, -1)
    blocks = data.reshape(8, -1, GGML_QUANT_SIZES[type_][1]).copy()
    layout = block_layout(type_)
    scales, offsets = (np.repeat(values, layout.group_size, -1) for values in layout.read_scales(blocks))
    codes = layout.unpack_codes(blocks)
    decoded = (layout.levels[codes] * scales + offsets).reshape(8, -1)
    assert np.array_equal(decoded, dequantize(data, type_))
    other = random.integers(0, len(layout.levels), codes.shape).astype(np.uint8)
    layout.pack_codes(blocks, other)
    assert np.array_equal(layout.unpack_codes(blocks), other)
    decoded = (layout.levels[other] * scales + offsets).reshape(8, -1)
    assert np.array_equal(decoded, dequantize(blocks.reshape(8, -1), type_))
    layout.pack_codes(blocks, codes)
    assert np.array_equal(blocks.reshape(8, -1), data)
