"""Coefficients of the error feedback are those of the covariance."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.convert.quantize.covariance import Covariance
from thirteen.convert.quantize.error_feedback import DAMPING, FeedbackCache, error_feedback
from thirteen.convert.quantize.importance import ImportanceStats, read_importance, write_importance
from thirteen.convert.quantize.rounding import RowQuantizer
from thirteen.convert.tensors import TensorSpec, plan_tensor
from thirteen.errors import ModelFileError


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), rank=st.integers(0, 6))
def test_the_hessian_of_a_block_is_the_schur_complement_of_the_later_blocks(seed, count, rank):
    random = np.random.default_rng(seed)
    low_rank = random.standard_normal((8 * count, rank)).astype(np.float32)
    own = np.eye(8, dtype=np.float32) * random.uniform(0.5, 2, (count, 1, 1)).astype(np.float32)
    parts = low_rank.reshape(count, 8, rank)
    covariance = Covariance(own + parts @ parts.transpose(0, 2, 1), low_rank)
    feedback = error_feedback(covariance)
    full = (low_rank @ low_rank.T).astype(np.float64)
    for block in range(count):
        span = slice(8 * block, 8 * block + 8)
        full[span, span] += own[block] + DAMPING * covariance.variances[span].mean() * np.eye(8)
    for block in range(count):
        now, later = slice(8 * block, 8 * block + 8), slice(8 * block + 8, None)
        explained = full[now, later] @ np.linalg.solve(full[later, later], full[later, now])
        assert np.allclose(feedback.hessian[block], full[now, now] - explained, rtol=1e-3, atol=1e-3)


def test_uncorrelated_inputs_get_no_feedback():
    feedback = error_feedback(Covariance(np.eye(32, dtype=np.float32)[None], np.zeros((32, 0), np.float32)))
    assert np.array_equal(feedback.inverse_cholesky, np.eye(32)[None])


def test_negative_variances_are_refused():
    with pytest.raises(ModelFileError, match="negative variances"):
        error_feedback(Covariance(-np.eye(32, dtype=np.float32)[None], np.zeros((32, 0), np.float32)))


@given(seed=st.integers(0, 1000), group_size=st.sampled_from([1, 4, 16]), ties=st.booleans())
def test_columns_come_by_falling_variance_and_those_of_a_group_together(seed, group_size, ties):
    variances = np.random.default_rng(seed).uniform(0.1, 2, 64).astype(np.float32)
    variances = np.full_like(variances, 0.5) if ties else variances
    covariance = Covariance(np.diag(variances)[None], np.zeros((64, 0), np.float32))
    order = error_feedback(covariance, group_size).permutation[0].reshape(-1, group_size)
    assert np.array_equal(np.sort(order.ravel()), np.arange(64))
    assert (order // group_size == order[:, :1] // group_size).all()
    assert (np.diff(variances[order], axis=1) <= 0).all()
    assert (np.diff(variances[order].mean(1)) <= 1e-6).all()


def test_blocks_that_groups_do_not_divide_are_of_no_use(tmp_path):
    """An importance file with such blocks ended in a ValueError when scales were searched."""
    blocks = np.eye(8, dtype=np.float32)[None].repeat(32, axis=0) / 256
    covariance = Covariance(blocks, np.zeros((256, 0), np.float32))
    sums, counts = {"m": np.ones(256, np.float32)}, {"m": 1}
    write_importance(
        tmp_path / "a.gguf", ImportanceStats(sums, counts, 64, 1, ["a"], covariances={"m": covariance})
    )
    importance = read_importance(tmp_path / "a.gguf")
    assert FeedbackCache(importance).get("m") is not None
    assert FeedbackCache(importance).get("m", group_size=32) is None
    plan = plan_tensor(TensorSpec("m", "m", (2, 256)), GGMLQuantizationType.Q4_K)
    rows = np.random.default_rng(1).standard_normal((2, 256), np.float32)
    given, searched = (
        RowQuantizer(importance, search_scales=search).quantize(plan, rows) for search in (False, True)
    )
    assert given == searched
