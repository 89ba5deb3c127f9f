"""Rounding with feedback lowers the error of the layer's output, which is what it is for."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.convert.quantize.covariance import Covariance
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.gptq import DAMPING, error_feedback, gptq_round
from thirteen.errors import ModelFileError

SCALAR = ["Q4_0", "IQ4_NL", "Q4_1", "Q5_1", "Q4_K", "Q3_K", "Q2_K", "Q6_K", "IQ4_XS", "MXFP4"]


def correlated(columns, seed=1):
    """The covariance of inputs that vary together, (columns, columns)."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((4000, 12)) @ random.standard_normal((12, columns))
    inputs = (mixed + 0.3 * random.standard_normal((4000, columns))).astype(np.float32)
    return inputs.T @ inputs / len(inputs)


def in_blocks(whole, width, rank):
    """The same as it is kept: full in blocks, by its largest eigenvectors between them."""
    blocks = [whole[at : at + width, at : at + width] for at in range(0, len(whole), width)]
    values, vectors = np.linalg.eigh(whole)
    low = vectors[:, ::-1][:, :rank] * np.sqrt(np.maximum(values[::-1][:rank], 0))
    return Covariance(np.stack(blocks), low.astype(np.float32))


def rounded(rows, type_):
    return np.frombuffer(quantize_rows(rows, type_, "test"), np.uint8).reshape(len(rows), -1)


def error(whole, rows, data, type_):
    wrong = dequantize(data, type_) - rows
    return float(((wrong @ whole) * wrong).sum())


@pytest.mark.parametrize("name", SCALAR)
def test_the_outputs_error_falls(name):
    whole = correlated(512)
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = rounded(rows, Type[name])
    better = gptq_round(rows, blocks, Type[name], error_feedback(in_blocks(whole, 256, 12)))
    assert error(whole, rows, better, Type[name]) < 0.8 * error(whole, rows, blocks, Type[name])


def test_what_couples_the_blocks_helps_as_much_as_one_block_would():
    whole = correlated(512)
    rows = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)
    blocks = rounded(rows, Type.Q4_0)

    def after(covariance):
        better = gptq_round(rows, blocks, Type.Q4_0, error_feedback(covariance))
        return error(whole, rows, better, Type.Q4_0)

    apart, coupled, one = (after(in_blocks(whole, *of)) for of in ((64, 0), (64, 12), (512, 0)))
    assert coupled < 0.7 * apart
    assert coupled < 1.3 * one


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), rank=st.integers(0, 6))
def test_what_the_later_blocks_leave_is_what_is_counted(seed, count, rank):
    """The metric of a block is the Schur complement of the blocks after it, computed here in full."""
    random = np.random.default_rng(seed)
    low = random.standard_normal((8 * count, rank)).astype(np.float32)
    own = np.eye(8, dtype=np.float32) * random.uniform(0.5, 2, (count, 1, 1)).astype(np.float32)
    parts = low.reshape(count, 8, rank)
    covariance = Covariance(own + parts @ parts.transpose(0, 2, 1), low)
    found = error_feedback(covariance)
    whole = (low @ low.T).astype(np.float64)
    for block in range(count):
        span = slice(8 * block, 8 * block + 8)
        whole[span, span] += own[block] + DAMPING * covariance.variances[span].mean() * np.eye(8)
    for block in range(count):
        now, later = slice(8 * block, 8 * block + 8), slice(8 * block + 8, None)
        beyond = whole[now, later] @ np.linalg.solve(whole[later, later], whole[later, now])
        assert np.allclose(found.metric[block], whole[now, now] - beyond, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "MXFP4"])
def test_a_small_delta_along_a_direction_comes_through_where_it_is_stressed(name):
    """Unstressed, most of it would fall below half a step and be lost."""
    random, whole = np.random.default_rng(3), correlated(256)
    base = dequantize(rounded(random.standard_normal((64, 256)).astype(np.float32), Type[name]), Type[name])
    data = rounded(base, Type[name])
    base = dequantize(data, Type[name])
    a = random.standard_normal((2, 256)).astype(np.float32)
    delta = (0.01 * random.standard_normal((64, 2)) @ a).astype(np.float32)

    def slope(covariance):
        shown = (
            dequantize(gptq_round(base + delta, data, Type[name], error_feedback(covariance)), Type[name])
            - base
        )
        return float(((shown @ whole) * delta).sum() / ((delta @ whole) * delta).sum())

    covariance = in_blocks(whole, 256, 0)
    assert abs(1 - slope(covariance.stressing(a, 100))) < 0.05
    assert abs(1 - slope(covariance.stressing(a, 100))) < abs(1 - slope(covariance))


def test_a_covariance_times_vectors_is_that_of_the_whole():
    random = np.random.default_rng(4)
    low = random.standard_normal((96, 5)).astype(np.float32)
    whole = low @ low.T + np.kron(np.eye(3), np.ones((32, 32)))
    blocks = np.stack([whole[at : at + 32, at : at + 32] for at in (0, 32, 64)]).astype(np.float32)
    vectors = random.standard_normal((96, 2)).astype(np.float32)
    assert np.allclose(Covariance(blocks, low).times(vectors), whole @ vectors, rtol=1e-4, atol=1e-3)


def test_without_correlation_nothing_is_passed_on():
    found = error_feedback(Covariance(np.eye(32, dtype=np.float32)[None], np.zeros((32, 0), np.float32)))
    assert np.array_equal(found.upper, np.eye(32)[None])


def test_what_is_no_covariance_is_refused():
    with pytest.raises(ModelFileError, match="negative variances"):
        error_feedback(Covariance(-np.eye(32, dtype=np.float32)[None], np.zeros((32, 0), np.float32)))
