"""The allocation meets its budget and is optimal."""

from itertools import product

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.knapsack import TypeOption, allocate_types

NUMBER = st.integers(1, 50)
OPTION = st.builds(
    lambda size, loss, cost: TypeOption(Type.Q4_K, 32 * size, loss / 7, float(cost)), NUMBER, NUMBER, NUMBER
)
MODELS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5).map(
    lambda tensors: {f"blk.{i}": options for i, options in enumerate(tensors)}
)


def totals(chosen):
    return sum(o.nbytes for o in chosen.values()), sum(o.loss for o in chosen.values())


@given(MODELS, st.integers(0, 200))
def test_the_allocation_is_the_best_within_the_budget(options, units):
    budget = sum(min(option.nbytes for option in choices) for choices in options.values()) + 32 * units
    fitting = [c for c in product(*options.values()) if sum(o.nbytes for o in c) <= budget]
    nbytes, loss = totals(allocate_types(options, budget))
    assert nbytes <= budget
    assert loss == pytest.approx(min(sum(o.loss for o in c) for c in fitting))


@pytest.mark.parametrize(
    ("minimum", "nbytes"), [(-5000, 640), (0, 640), (641, 960), (1280, 1280), (1281, 640)]
)
def test_the_minimum_size_is_reached_where_possible(minimum, nbytes):
    choices = [TypeOption(Type.Q2_K, 320, 1.0, 1.0), TypeOption(Type.Q4_K, 640, 0.9, 9.0)]
    chosen = allocate_types({"x": choices, "y": choices}, 2000, minimum, speed_weight=2.0)
    assert totals(chosen)[0] == nbytes


def test_the_smallest_types_fit_their_own_size_whatever_the_unit():
    """Sizes are rounded up to the unit: an IndexError, where the first tensor was small."""
    sizes = [32, *(32 * (40_003 + 7 * i) for i in range(500))]
    options = {
        f"blk.{i:03}": [TypeOption(Type.Q2_K, size, 1.0, 1.0), TypeOption(Type.Q8_0, 2 * size, 0.0, 1.0)]
        for i, size in enumerate(sizes)
    }
    assert totals(allocate_types(options, sum(sizes)))[0] == sum(sizes)


def test_a_speed_weight_is_the_percent_of_loss_that_a_percent_of_time_is_worth():
    fast, exact = TypeOption(Type.Q4_0, 320, 0.02, 1.0), TypeOption(Type.Q4_K, 320, 0.01, 1.2)
    options = {f"blk.{i}": [fast, exact] for i in range(8)}
    for speed_weight, expected in ((0.0, exact), (2.0, exact), (8.0, fast)):  # 1.2**2 < 2 < 1.2**8
        assert set(allocate_types(options, 9000, speed_weight=speed_weight).values()) == {expected}
