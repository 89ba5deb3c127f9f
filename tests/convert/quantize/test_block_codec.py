"""Decoded blocks match gguf's own dequantization, and encode back to the same bytes."""

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from thirteen.convert.quantize.block_codec import block_layout
from thirteen.convert.quantize.ggml import quantize_rows

SCALAR = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"]
SCALAR += ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"]


def random_blocks(name, random):
    """Blocks of normal weights, (blocks, block bytes)."""
    rows = random.standard_normal((16, 512)).astype(np.float32)
    data = np.frombuffer(quantize_rows(rows, Type[name], "test"), np.uint8)
    return data.reshape(-1, GGML_QUANT_SIZES[Type[name]][1]).copy()


@pytest.mark.parametrize("name", SCALAR)
def test_a_block_is_level_times_scale_plus_offset_and_accepts_other_codes(name):
    type_, random = Type[name], np.random.default_rng(13)
    rows = random.standard_normal((8, 512)).astype(np.float32)
    data = np.frombuffer(quantize_rows(rows, type_, "test"), np.uint8).reshape(8, -1)
    blocks = data.reshape(8, -1, GGML_QUANT_SIZES[type_][1]).copy()
    layout = block_layout(type_)
    scales, offsets = (np.repeat(values, layout.group_size, -1) for values in layout.scales.read(blocks))
    codes = layout.unpack_codes(blocks)
    weights = (layout.levels[codes] * scales + offsets).reshape(8, -1)
    assert np.array_equal(weights, dequantize(data, type_))
    other = random.integers(0, len(layout.levels), codes.shape).astype(np.uint8)
    layout.pack_codes(blocks, other)
    assert np.array_equal(layout.unpack_codes(blocks), other)
    weights = (layout.levels[other] * scales + offsets).reshape(8, -1)
    assert np.array_equal(weights, dequantize(blocks.reshape(8, -1), type_))
    layout.pack_codes(blocks, codes)
    assert np.array_equal(blocks.reshape(8, -1), data)


@pytest.mark.parametrize("name", SCALAR)
def test_scales_are_written_as_they_are_read(name):
    random, layout = np.random.default_rng(14), block_layout(Type[name])
    blocks = random_blocks(name, random)
    data = blocks.copy()
    scales, offsets = layout.scales.read(blocks)
    other = blocks[random.permutation(len(blocks))]
    for at in layout.scales.super_scales:
        other[:, at : at + 2] = blocks[:, at : at + 2]
    codes = layout.unpack_codes(other)
    layout.scales.write(other, scales, offsets)
    assert all(map(np.array_equal, layout.scales.read(other), (scales, offsets)))
    assert np.array_equal(layout.unpack_codes(other), codes)
    layout.scales.write(blocks, scales, offsets)
    assert np.array_equal(blocks, data)
