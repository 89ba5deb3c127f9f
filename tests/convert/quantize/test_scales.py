"""The fast scale search is as good as ggml's, once GPTQ chooses the codes."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.error_feedback import error_feedback
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.gptq import gptq_round
from thirteen.convert.quantize.importance import Covariance
from thirteen.convert.quantize.scales import fit_scales

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
