"""GPTQ lowers the error of the layer's output, also from scales that are searched quickly."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.block_codec import block_layout
from thirteen.convert.quantize.error_feedback import error_feedback
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.gptq import gptq_round
from thirteen.convert.quantize.importance import Covariance
from thirteen.convert.quantize.scales import fit_scales

from .covariances import correlated, in_blocks

pytestmark = pytest.mark.slow

SCALAR = ["Q4_0", "IQ4_NL", "Q4_1", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS", "MXFP4"]


def quantized(rows, type_):
    return np.frombuffer(quantize_rows(rows, type_, "test"), np.uint8).reshape(len(rows), -1)


def output_error(full, rows, data, type_):
    error = dequantize(data, type_) - rows
    return float(((error @ full) * error).sum())


@pytest.mark.parametrize("name", SCALAR)
def test_gptq_lowers_the_output_error(name):
    full = correlated(512)
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = quantized(rows, Type[name])
    rounded = gptq_round(rows, blocks, Type[name], error_feedback(in_blocks(full, 256, 12)))
    assert output_error(full, rows, rounded, Type[name]) < 0.8 * output_error(full, rows, blocks, Type[name])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SCALAR)
def test_blocks_of_zeros_stay_zero(name):
    """The reciprocal of MXFP4's smallest scale overflowed."""
    rows = np.zeros((2, 512), np.float32)
    feedback = error_feedback(in_blocks(correlated(512), 256, 12))
    rounded = gptq_round(rows, quantized(rows, Type[name]), Type[name], feedback)
    assert not dequantize(rounded, Type[name]).any()


@pytest.mark.parametrize("name", [name for name in SCALAR if name != "MXFP4"])
def test_searched_scales_lower_the_output_error(name):
    full = correlated(512)
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks, covariance = quantized(rows, Type[name]), in_blocks(full, 256, 12)
    feedback = error_feedback(covariance, block_layout(Type[name]).group_size)
    given = gptq_round(rows, blocks, Type[name], feedback)
    searched = gptq_round(rows, blocks, Type[name], feedback, scales="search")
    assert output_error(full, rows, searched, Type[name]) < 0.97 * output_error(full, rows, given, Type[name])
    parts = [
        gptq_round(part, data, Type[name], feedback, scales="search")
        for part, data in zip(np.split(rows, 4), np.split(blocks, 4), strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), searched)


def test_low_rank_coupling_recovers_most_of_a_full_covariance():
    full = correlated(512)
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = quantized(rows, Type.Q4_0)

    def error_with(covariance):
        rounded = gptq_round(rows, blocks, Type.Q4_0, error_feedback(covariance))
        return output_error(full, rows, rounded, Type.Q4_0)

    uncoupled, coupled, one = (error_with(in_blocks(full, *shape)) for shape in ((64, 0), (64, 12), (512, 0)))
    assert coupled < 0.7 * uncoupled
    assert coupled < 1.3 * one


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q4_1", "Q5_1"])
def test_refitted_scales_bring_rows_closer_to_a_small_change(name):
    random, full = np.random.default_rng(3), correlated(256)
    data = quantized(random.standard_normal((64, 256)).astype(np.float32), Type[name])
    delta = 0.01 * random.standard_normal((64, 2)) @ random.standard_normal((2, 256))
    changed = (dequantize(data, Type[name]) + delta).astype(np.float32)
    feedback = error_feedback(in_blocks(full, 256, 0))
    given, refitted = (
        output_error(
            full, changed, gptq_round(changed, data, Type[name], feedback, scales=scales), Type[name]
        )
        for scales in ("given", "refit")
    )
    assert refitted < 0.6 * given


FITTED = ["IQ4_NL", "Q4_1", "Q5_1", "Q4_K", "Q5_K", "Q2_K", "IQ4_XS"]


def nearest(rows, blocks, type_):
    """The rows rounded with the scales of `blocks`, each weight on its own."""
    columns = rows.shape[1]
    uncorrelated = Covariance(np.eye(columns, dtype=np.float32)[None], np.zeros((columns, 0), np.float32))
    return dequantize(gptq_round(rows, blocks, type_, error_feedback(uncorrelated)), type_)


@pytest.mark.parametrize("name", FITTED)
def test_fitted_scales_round_as_well_as_ggmls(name):
    random = np.random.default_rng(1)
    rows = random.standard_t(5, (64, 512)).astype(np.float32)
    importance = random.gamma(1, size=512).astype(np.float32)
    ggml = np.frombuffer(quantize_rows(rows, Type[name], "test", importance), np.uint8).reshape(64, -1)
    ours, theirs = (
        (np.square(nearest(rows, blocks, Type[name]) - rows) @ importance).sum()
        for blocks in (fit_scales(rows, Type[name], importance), ggml)
    )
    assert ours < 1.05 * theirs


@pytest.mark.parametrize("name", FITTED)
@given(seed=st.integers(0, 99), scale=st.sampled_from([0, 1e-30, 1e-8, 1e-3, 1, 3e4]), sign=st.booleans())
def test_degenerate_weights_get_finite_scales(name, seed, scale, sign):
    """Weights that are equal, of one sign, tiny or zero round to finite values near them."""
    rows = np.random.default_rng(seed).standard_normal((4, 256)).astype(np.float32)
    rows = np.clip((np.abs(rows) if sign else rows) * np.float32(scale), -6e4, 6e4)
    rows[1] = scale
    rounded = nearest(rows, fit_scales(rows, Type[name], np.ones(256, np.float32)), Type[name])
    assert np.isfinite(rounded).all()
    assert np.abs(rounded - rows).max() <= 0.5 * np.abs(rows).max() + 1e-6
