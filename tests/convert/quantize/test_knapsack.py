"""The allocation meets its budget and is optimal; more bytes never cost more loss."""

from itertools import product

import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.quantize.knapsack import TypeOption, allocate_types
from thirteen.errors import OutputError

TYPES = (Type.Q2_K, Type.Q4_K, Type.Q8_0)
number = st.integers(1, 50)
option = st.builds(
    lambda type_, size, loss, cost: TypeOption(type_, 32 * size, loss / 7, float(cost)),
    st.sampled_from(TYPES),
    number,
    number,
    number,
)
models = st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5).map(
    lambda tensors: {f"blk.{i}": options for i, options in enumerate(tensors)}
)


def totals(chosen):
    return sum(o.nbytes for o in chosen.values()), sum(o.loss for o in chosen.values())


@given(models, st.integers(0, 300))
def test_the_allocation_is_the_best_within_the_budget(options, units):
    budget = 32 * units
    fitting = [c for c in product(*options.values()) if sum(o.nbytes for o in c) <= budget]
    if not fitting:
        with pytest.raises(OutputError, match="smallest possible"):
            allocate_types(options, budget)
        return
    nbytes, loss = totals(allocate_types(options, budget))
    assert nbytes <= budget
    assert loss == pytest.approx(min(sum(o.loss for o in c) for c in fitting))


@given(models, st.integers(250, 300), st.integers(0, 50))
def test_more_bytes_never_cost_more_loss(options, units, more):
    small, large = (totals(allocate_types(options, 32 * n))[1] for n in (units, units + more))
    assert large <= small + 1e-9


@given(models, st.randoms(use_true_random=False), st.sampled_from([0.0, 2.0]))
def test_the_order_of_tensors_does_not_matter(options, random, speed_weight):
    names = list(options)
    random.shuffle(names)
    shuffled = {name: options[name] for name in names}
    assert allocate_types(options, 8000, speed_weight=speed_weight) == allocate_types(
        shuffled, 8000, speed_weight=speed_weight
    )


@given(models)
def test_the_minimum_size_is_reached_where_possible(options):
    maximum = sum(max(o.nbytes for o in choices) for choices in options.values())
    nbytes, _ = totals(allocate_types(options, maximum, minimum=32))
    assert 32 <= nbytes <= maximum


def test_a_speed_weight_selects_the_faster_type():
    fast, exact = TypeOption(Type.Q4_0, 320, 1.1, 1.0), TypeOption(Type.Q4_K, 320, 1.0, 2.0)
    options = {f"blk.{i}": [fast, exact] for i in range(8)}
    assert set(allocate_types(options, 9000).values()) == {exact}
    assert set(allocate_types(options, 9000, speed_weight=2.0).values()) == {fast}
