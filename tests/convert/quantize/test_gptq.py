"""GPTQ and its error feedback: coefficients of the covariance, and a lower error of the layer's output."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.block_codec import block_layout
from thirteen.convert.quantize.error_feedback import DAMPING, FeedbackCache, error_feedback
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.importance import Covariance
from thirteen.convert.quantize.rounding import RowQuantizer, gptq_round
from thirteen.convert.quantize.scales import fit_scales
from thirteen.convert.tensors import TensorSpec, plan_tensor
from thirteen.errors import FileError

from .covariances import correlated, importance_with, in_blocks

pytestmark = pytest.mark.slow

SCALAR = ["Q4_0", "IQ4_NL", "Q4_1", "Q4_K", "Q6_K", "Q3_K", "Q2_K", "IQ4_XS", "MXFP4"]
FULL = correlated(512)
ROWS = np.random.default_rng(2).standard_normal((64, 512)).astype(np.float32)


def quantized(rows, type_, importance=None):
    return np.frombuffer(quantize_rows(rows, type_, "test", importance), np.uint8).reshape(len(rows), -1)


def output_error(full, rows, data, type_):
    error = dequantize(data, type_) - rows
    return float(((error @ full) * error).sum())


@pytest.mark.parametrize("name", SCALAR)
def test_gptq_lowers_the_output_error(name):
    blocks = quantized(ROWS, Type[name])
    rounded = gptq_round(ROWS, blocks, Type[name], error_feedback(in_blocks(FULL, 256, 12)))
    assert output_error(FULL, ROWS, rounded, Type[name]) < 0.8 * output_error(FULL, ROWS, blocks, Type[name])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SCALAR)
def test_blocks_of_zeros_stay_zero(name):
    """The reciprocal of MXFP4's smallest scale overflowed."""
    rows = np.zeros((2, 512), np.float32)
    feedback = error_feedback(in_blocks(FULL, 256, 12))
    rounded = gptq_round(rows, quantized(rows, Type[name]), Type[name], feedback)
    assert not dequantize(rounded, Type[name]).any()


@pytest.mark.parametrize("name", [name for name in SCALAR if name != "MXFP4"])
def test_searched_scales_lower_the_output_error(name):
    blocks, covariance = quantized(ROWS, Type[name]), in_blocks(FULL, 256, 12)
    feedback = error_feedback(covariance, block_layout(Type[name]).group_size)
    given = gptq_round(ROWS, blocks, Type[name], feedback)
    searched = gptq_round(ROWS, blocks, Type[name], feedback, scales="search")
    assert output_error(FULL, ROWS, searched, Type[name]) < 0.97 * output_error(FULL, ROWS, given, Type[name])
    parts = [
        gptq_round(part, data, Type[name], feedback, scales="search")
        for part, data in zip(np.split(ROWS, 4), np.split(blocks, 4), strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), searched)


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
    ggml = quantized(rows, Type[name], importance)
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


def full_of(covariance, damping):
    """The full covariance with a damping of each block, (columns, columns)."""
    count, width, _ = covariance.blocks.shape
    full = (covariance.low_rank @ covariance.low_rank.T).astype(np.float64)
    for block, variances in enumerate(covariance.variances.reshape(count, width)):
        span = slice(width * block, width * block + width)
        full[span, span] = covariance.blocks[block] + damping * variances.mean() * np.eye(width)
    return full


@given(seed=st.integers(0, 1000), count=st.integers(1, 4), rank=st.integers(0, 6))
def test_variances_are_those_that_later_columns_leave_unexplained(seed, count, rank):
    """Those of a block by the later blocks, the Schur complement; those of a column by the later columns."""
    random = np.random.default_rng(seed)
    low_rank = random.standard_normal((8 * count, rank)).astype(np.float32)
    own = np.eye(8, dtype=np.float32) * random.uniform(0.5, 2, (count, 1, 1)).astype(np.float32)
    parts = low_rank.reshape(count, 8, rank)
    covariance = Covariance(own + parts @ parts.transpose(0, 2, 1), low_rank)
    product = covariance.multiply(np.eye(8 * count, dtype=np.float32))
    assert np.allclose(product, full_of(covariance, 0), rtol=1e-4, atol=1e-3)
    feedback, full = error_feedback(covariance), full_of(covariance, DAMPING)
    for block in range(count):
        now, later = slice(8 * block, 8 * block + 8), slice(8 * block + 8, None)
        explained = full[now, later] @ np.linalg.solve(full[later, later], full[later, now])
        assert np.allclose(feedback.hessian[block], full[now, now] - explained, rtol=1e-3, atol=1e-3)
    backwards = (feedback.permutation + 8 * np.arange(count)[:, None]).ravel()[::-1]
    factor = np.linalg.cholesky(full[np.ix_(backwards, backwards)])
    assert np.allclose(feedback.conditional_variances[backwards], np.diagonal(factor) ** 2, rtol=1e-3)


def test_negative_variances_are_refused(tmp_path):
    """The error named neither the file nor the tensor."""
    blocks = 2 * np.ones((1, 32, 32), np.float32) - np.eye(32, dtype=np.float32)
    cache = FeedbackCache(importance_with(Covariance(blocks, np.zeros((32, 0), np.float32)), tmp_path))
    with pytest.raises(FileError, match=r"importance.gguf: tensor 'm.in_cov' has negative variances"):
        cache.get("m")


def test_blocks_that_groups_do_not_divide_are_of_no_use(tmp_path):
    """An importance file with such blocks ended in a ValueError when scales were searched."""
    blocks = np.eye(8, dtype=np.float32)[None].repeat(32, axis=0) / 256
    importance = importance_with(Covariance(blocks, np.zeros((256, 0), np.float32)), tmp_path)
    assert FeedbackCache(importance).get("m") is not None
    assert FeedbackCache(importance).get("m", group_size=32) is None
    plan = plan_tensor(TensorSpec("m", "m", (2, 256)), Type.Q4_K)
    rows = np.random.default_rng(1).standard_normal((2, 256), np.float32)
    given, searched = (
        RowQuantizer(importance, search_scales=search).quantize(plan, rows) for search in (False, True)
    )
    assert given == searched


def test_merged_rows_that_are_not_finite_are_refused(tmp_path):
    """They were written, where only the rows of the base were checked."""
    plan = plan_tensor(TensorSpec("m", "m", (4, 256)), Type.Q4_0)
    quantizer = RowQuantizer(importance_with(in_blocks(np.eye(256) / 256, 256, 0), tmp_path))
    rows = np.random.default_rng(1).standard_normal((4, 256), np.float32)
    with pytest.raises(FileError, match="not finite"):
        quantizer.quantize(plan, rows, rows + np.float32(np.nan), rows[:1])


def test_a_matrix_without_importance_takes_a_type_that_needs_it(tmp_path):
    """An untied embedding has none in an importance file."""
    plan = plan_tensor(TensorSpec("embed", "embed", (4, 256)), Type.IQ3_XXS)
    quantizer = RowQuantizer(importance_with(in_blocks(np.eye(256) / 256, 256, 0), tmp_path))
    assert len(quantizer.quantize(plan, np.ones((4, 256), np.float32))) == plan.nbytes


@pytest.mark.parametrize(("name", "most"), [("Q4_0", 0.3), ("Q4_K", 0.5), ("IQ4_NL", 0.3), ("MXFP4", 0.5)])
@pytest.mark.parametrize("size", [0.01, 1.0])  # below and above the rounding noise
def test_an_adapter_survives_the_rounding_of_its_base(tmp_path, name, most, size):
    """Neither is it rounded away, nor lost in noise that is drawn anew."""
    random, full = np.random.default_rng(2), correlated(256)
    rows, b, a = (random.standard_normal(shape, np.float32) for shape in ((64, 256), (64, 2), (2, 256)))
    delta = np.float32(size) * b @ a
    plan = plan_tensor(TensorSpec("m", "m", rows.shape), Type[name])
    quantizer = RowQuantizer(importance_with(in_blocks(full / np.trace(full), 256, 0), tmp_path))
    base, adapted = (
        dequantize(
            np.frombuffer(quantizer.quantize(plan, rows, *adapter), np.uint8).reshape(64, -1), plan.type
        )
        for adapter in ((), (rows + delta, a))
    )
    change, noise = adapted - base, adapted - base - delta

    def product(one, other):
        return float(((one @ full) * other).sum())

    assert product(change, delta) == pytest.approx(product(delta, delta), rel=0.07)
    assert product(noise, noise) < most * product(delta, delta)
