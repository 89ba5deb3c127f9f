"""Rounding with feedback lowers the error of the layer's output, which is what it is for."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from thirteen.convert.feedback import influence, round_with_feedback
from thirteen.convert.quantize import quantize
from thirteen.errors import ModelFileError


def correlated(columns):
    """Inputs that vary together, (tokens, columns)."""
    random = np.random.default_rng(1)
    mixed = random.standard_normal((4000, 12)) @ random.standard_normal((12, columns))
    return (mixed + 0.3 * random.standard_normal((4000, columns))).astype(np.float32)


@pytest.mark.parametrize("name", ["Q4_0", "IQ4_NL", "Q4_1", "Q4_K", "Q3_K", "Q2_K", "Q6_K", "MXFP4"])
def test_the_outputs_error_falls(name):
    inputs = correlated(256)
    rows = np.random.default_rng(2).standard_normal((64, 256)).astype(np.float32)
    blocks = np.frombuffer(quantize(rows, Type[name], "test"), np.uint8).reshape(64, -1)
    passed_on = influence((inputs.T @ inputs / len(inputs))[None])
    better = round_with_feedback(rows, blocks, Type[name], passed_on)

    def error(data):
        return np.square((dequantize(data, Type[name]) - rows) @ inputs.T).sum()

    assert error(better) < 0.8 * error(blocks)


def test_without_correlation_nothing_is_passed_on():
    assert np.array_equal(influence(np.eye(32)[None]), np.eye(32)[None])


def test_what_is_no_covariance_is_refused():
    with pytest.raises(ModelFileError, match="negative variances"):
        influence(-np.eye(32)[None])
