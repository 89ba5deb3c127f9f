"""The loss of an embedding covers its uses: token lookup, the output product, or both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.costs import CostTable
from thirteen.convert.quantize.error_feedback import FeedbackCache
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.importance import Importance
from thirteen.convert.quantize.quant_error import TypeLosses
from thirteen.convert.source.architecture import EMBEDDING, OUTPUT
from thirteen.convert.tensors import TensorSpec
from thirteen.errors import OutputError

from .covariances import correlated, importance_with, in_blocks

ROWS, COLUMNS = 512, 64  # all rows are in the sample
TYPE_COSTS = {"Q4_K": 1.0, "Q4_0": 0.9, "IQ4_NL": 0.9, "Q5_0": 1.2, "Q8_0": 2.0, "F16": 4.0}
COSTS = CostTable("x86", TYPE_COSTS, TYPE_COSTS)
IMPORTANCE = Importance(
    path=Path("importance.gguf"),
    sha256="",
    mean_squares={EMBEDDING: np.ones(COLUMNS, np.float32), OUTPUT: np.ones(COLUMNS, np.float32)},
    datasets=("a",),
    chunk_count=1,
    sensitivity={EMBEDDING: 0.5, OUTPUT: 0.5},
    lookup_sensitivity=2.0,
    lookup_counts=np.ones(ROWS, np.float32),
)
sensitivities = st.floats(0, 1000)


# Random weights, with values in the even rows that Q8_0 represents exactly.
MATRIX = np.random.default_rng(1).normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
MATRIX[::2] = np.random.default_rng(2).choice([-127, -3, 0, 64, 127], (ROWS // 2, COLUMNS))


def matrix_rows(name: str, start: int, stop: int) -> np.ndarray:
    return MATRIX[start:stop]


def losses(importance: Importance, name: str = EMBEDDING, *, tied: bool = True) -> dict[Type, float]:
    spec = TensorSpec(name, name, (ROWS, COLUMNS))
    return {o.type: o.loss for o in TypeLosses(matrix_rows, importance, COSTS, tied).measure(spec)}


def squared_errors(type_: Type, rows: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """The squared error of each weight in ggml's rounding."""
    data = np.frombuffer(quantize_rows(rows, type_, "test", importance), np.uint8).reshape(len(rows), -1)
    errors: np.ndarray = np.square(dequantize(data, type_) - rows)
    return errors


def relative_error(type_: Type, rows: np.ndarray) -> float:
    """The error of ggml's rounding with equal importance for all inputs."""
    errors = squared_errors(type_, rows, np.ones(COLUMNS, np.float32))
    return float(errors.sum() / np.square(rows).sum())


@given(sensitivities, sensitivities)
def test_untied_matrices_have_separate_losses(product, lookup):
    importance = replace(
        IMPORTANCE, sensitivity={EMBEDDING: 77.0, OUTPUT: product}, lookup_sensitivity=lookup
    )
    both = losses(replace(importance, sensitivity={EMBEDDING: product}))
    embedding, output = (losses(importance, name, tied=False) for name in (EMBEDDING, OUTPUT))
    assert {type_: embedding[type_] + output[type_] for type_ in both} == pytest.approx(both)
    assert embedding[Type.Q4_0] == pytest.approx(lookup * relative_error(Type.Q4_0, MATRIX), rel=1e-3)


@pytest.mark.parametrize("name", [EMBEDDING, OUTPUT])
def test_without_a_measured_sensitivity_errors_are_relative(name):
    """To the row or to the product; llama-imatrix measures no sensitivity."""
    unmeasured = replace(IMPORTANCE, sensitivity={}, lookup_sensitivity=None, lookup_counts=None)
    expected = relative_error(Type.Q4_0, MATRIX)
    assert losses(unmeasured, name, tied=False)[Type.Q4_0] == pytest.approx(expected, rel=1e-3)


def test_gptq_leaves_the_errors_that_later_inputs_do_not_explain(tmp_path):
    importance = importance_with(in_blocks(correlated(COLUMNS), 32, 4), tmp_path, OUTPUT)
    feedback = FeedbackCache(importance).get(OUTPUT)
    assert feedback is not None
    errors = squared_errors(Type.Q4_0, MATRIX, importance.mean_squares[OUTPUT])
    expected = 0.5 * (errors @ (ROWS * feedback.conditional_variances)).mean()
    found = losses(replace(importance, sensitivity={OUTPUT: 0.5}), OUTPUT, tied=False)
    assert found[Type.Q4_0] == pytest.approx(expected, rel=1e-3)


def test_gptq_makes_lookups_worse(tmp_path):
    """By as much as was measured on SmolLM2, see quant_error.py; F16 is not rounded by GPTQ."""
    uncorrelated = in_blocks(np.eye(COLUMNS, dtype=np.float32), COLUMNS, 0)
    importance = replace(importance_with(uncorrelated, tmp_path, EMBEDDING), lookup_sensitivity=2.0)
    found = losses(importance, tied=False)
    assert found[Type.F16] == pytest.approx(2.0 * relative_error(Type.F16, MATRIX), rel=1e-3, abs=0)
    assert 1.14 < found[Type.Q4_0] / (2.0 * relative_error(Type.Q4_0, MATRIX)) < 1.31


def test_rows_are_weighted_by_token_frequency():
    frequencies = np.zeros((3, ROWS), np.float32)
    frequencies[0, [4, 10, 338]] = 100, 3, 50  # rows that Q8_0 represents exactly
    frequencies[1, 7] = frequencies[2, [7, 8]] = 5
    exact, odd, half = (
        losses(replace(IMPORTANCE, lookup_counts=counts), tied=False)[Type.Q8_0] for counts in frequencies
    )
    assert exact == 0
    assert odd == pytest.approx(2.0 * relative_error(Type.Q8_0, MATRIX[7:8]), rel=1e-3)
    assert 0 < half < odd


@pytest.mark.parametrize(
    ("name", "tied", "timed"), [(EMBEDDING, True, True), (EMBEDDING, False, False), (OUTPUT, False, True)]
)
def test_lookups_cost_no_time(name, tied, timed):
    options = TypeLosses(matrix_rows, IMPORTANCE, COSTS, tied).measure(
        TensorSpec(name, name, (ROWS, COLUMNS))
    )
    assert {option.cost > 0 for option in options} == {timed}


def test_costs_without_a_type_for_a_matrix_are_refused():
    """The plan ended in a ValueError: a matrix without options has no smallest size."""
    costs = replace(COSTS, layer={"Q4_K": 1.0, "Q6_K": 1.5}, output={"Q4_K": 1.0})
    spec = TensorSpec(OUTPUT, OUTPUT, (ROWS, COLUMNS))
    message = "no type in the costs for x86 fits tensor 'output.weight': .* its 64 columns"
    with pytest.raises(OutputError, match=message):
        TypeLosses(matrix_rows, IMPORTANCE, costs, tied=False).measure(spec)
