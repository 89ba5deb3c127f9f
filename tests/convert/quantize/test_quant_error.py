"""An embedding loses by what it is for: tokens are looked up in it, outputs made by it, or both."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.convert.quantize.costs import CostTable
from thirteen.convert.quantize.ggml import quantize_rows
from thirteen.convert.quantize.gptq import FeedbackCache
from thirteen.convert.quantize.importance import Importance
from thirteen.convert.quantize.quant_error import measure_types
from thirteen.convert.quantize.size_planner import measure_all_types
from thirteen.convert.source.architecture import EMBEDDING, OUTPUT
from thirteen.convert.tensors import TensorSpec

ROWS, COLUMNS = 512, 64  # as many as are drawn
PRICES = {"Q4_K": 1.0, "Q4_0": 0.9, "IQ4_NL": 0.9, "Q5_0": 1.2, "Q8_0": 2.0, "F16": 4.0}
COSTS = CostTable("x86", PRICES, PRICES, "none", "2026-11-24", "0")
IMPORTANCE = Importance(
    path=Path("importance.gguf"),
    sha256="",
    means={EMBEDDING: np.ones(COLUMNS, np.float32), OUTPUT: np.ones(COLUMNS, np.float32)},
    counts={EMBEDDING: 9, OUTPUT: 9},
    datasets=("a",),
    chunk=64,
    chunks=1,
    sensitivity={EMBEDDING: 0.5, OUTPUT: 0.5},
    look_up_sensitivity=2.0,
    look_ups=np.ones(ROWS, np.float32),
)
sensitivities = st.floats(0, 1000)
some = settings(max_examples=20, deadline=None)


class Matrix:
    """Weights of one matrix: random, but for its even rows, whose values Q8_0 holds exactly."""

    def __init__(self) -> None:
        self.values = np.random.default_rng(1).normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
        self.values[::2] = np.random.default_rng(2).choice([-127, -3, 0, 64, 127], (ROWS // 2, COLUMNS))

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]


MATRIX = Matrix()


def losses(importance: Importance, name: str = EMBEDDING, *, tied: bool = True) -> dict[Type, float]:
    spec = TensorSpec(name, name, (ROWS, COLUMNS))
    return {
        o.type: o.loss
        for o in measure_types(spec, MATRIX, importance, FeedbackCache(importance), COSTS, tied=tied)
    }


def relative_error(type_: Type, rows: np.ndarray) -> float:
    """By ggml, with all inputs alike."""
    alike = np.ones(COLUMNS, np.float32)
    data = np.frombuffer(quantize_rows(rows, type_, "test", alike), np.uint8).reshape(len(rows), -1)
    return float(np.square(dequantize(data, type_) - rows).sum() / np.square(rows).sum())


@some
@given(sensitivities, sensitivities)
def test_a_tied_embeddings_loss_rises_with_the_look_ups_sensitivity(one: float, other: float) -> None:
    """By as much as the embedding alone would lose, and as the sensitivity rises."""
    of = [losses(replace(IMPORTANCE, look_up_sensitivity=value)) for value in (0.0, one, other)]
    for type_, base in of[0].items():
        rises = [(found[type_] - base) for found in of[1:]]
        error = relative_error(type_, MATRIX.values)
        assert rises == pytest.approx([one * error, other * error], rel=1e-3, abs=1e-9)


@some
@given(sensitivities, sensitivities)
def test_untied_each_matrix_has_its_own_loss(product: float, look_up: float) -> None:
    importance = replace(
        IMPORTANCE, sensitivity={EMBEDDING: 77.0, OUTPUT: product}, look_up_sensitivity=look_up
    )
    both = losses(replace(importance, sensitivity={EMBEDDING: product}))
    embedding, output = (losses(importance, name, tied=False) for name in (EMBEDDING, OUTPUT))
    assert {type_: embedding[type_] + output[type_] for type_ in both} == pytest.approx(both)
    assert embedding[Type.Q4_0] == pytest.approx(look_up * relative_error(Type.Q4_0, MATRIX.values), rel=1e-3)


def test_where_it_was_not_measured_errors_count_relative_to_the_row() -> None:
    old = replace(IMPORTANCE, sensitivity={}, look_up_sensitivity=None, look_ups=None)
    assert losses(old, tied=False) == pytest.approx(losses(replace(old, look_up_sensitivity=1.0), tied=False))
    assert losses(old, tied=False)[Type.Q4_0] > 0


def test_rows_count_as_often_as_the_text_has_their_token() -> None:
    often = np.zeros((3, ROWS), np.float32)
    often[0, [4, 10, 338]] = 100, 3, 50  # rows that Q8_0 holds exactly
    often[1, 7] = often[2, [7, 8]] = 5
    exact, odd, half = (losses(replace(IMPORTANCE, look_ups=of), tied=False)[Type.Q8_0] for of in often)
    assert exact == 0
    assert odd == pytest.approx(2.0 * relative_error(Type.Q8_0, MATRIX.values[7:8]), rel=1e-3)
    assert 0 < half < odd


def test_rows_of_no_token_are_drawn_where_none_was_counted() -> None:
    nothing = replace(IMPORTANCE, look_ups=np.zeros(ROWS, np.float32))
    assert losses(nothing) == losses(replace(IMPORTANCE, look_ups=None))


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_tied_that_has_no_output_matrix_and_look_ups_cost_no_time(tied: bool) -> None:
    names = [EMBEDDING] if tied else [EMBEDDING, OUTPUT]
    specs = {name: TensorSpec(name, name, (ROWS, COLUMNS)) for name in names}
    with ThreadPoolExecutor(1) as pool:
        options = measure_all_types(specs, MATRIX, IMPORTANCE, COSTS, pool, lambda done, total: None)
    for name, of in options.items():
        assert {o.type: o.loss for o in of} == losses(IMPORTANCE, name, tied=tied)
        assert all((o.cost > 0) == (tied or name == OUTPUT) for o in of)
