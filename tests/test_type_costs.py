"""Costs of types are measured as tables that plans read, and the shipped tables are such tables."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from thirteen.convert.quantize.costs import PARTS, read_costs
from thirteen.files.progress import no_progress
from thirteen.lab.random_model import ProbeShape, count_matrix_weights
from thirteen.lab.type_costs import measure, measured_types, weight_costs, write_table

TINY = ProbeShape(hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64, layers=2, vocabulary=1024)


@pytest.mark.slow
def test_measured_costs_are_a_table_that_plans_read(tmp_path, capsys):
    costs = measure(measured_types(["Q8_0"]), "llama.cpp", 2, TINY, no_progress)
    assert all(cost > 0 for part in PARTS for cost in costs[part].values())
    write_table(tmp_path / "costs.json", costs, "x86", "llama.cpp", "a build")
    table = read_costs(tmp_path / "costs.json")
    assert (table.target, table.library) == ("x86", "llama.cpp")
    assert {part: getattr(table, part) for part in PARTS} == costs
    assert "Q8_0" in capsys.readouterr().out


def test_costs_are_recovered_from_times_computed_from_them():
    shape, types = ProbeShape(), (Type.Q4_K, Type.Q8_0)
    phases = np.array([0.25, 1.0])  # relative cost of a token in prefill and decode
    minimal = count_matrix_weights(shape.minimal)
    weights = [count_matrix_weights(model) - minimal for model in (shape.all_layers, shape.all_output)]
    costs = ((0.03, 0.04), (0.06, 0.05))
    models = [w * ns * 1e-9 for of_type in costs for w, ns in zip(weights, of_type, strict=True)]
    times = np.array([0.0, *models])[:, None] * phases + 1e-4  # (models, 2)
    found = weight_costs(shape, types, np.stack([times] * 3))
    assert found["layer"] == pytest.approx({"Q4_K": 0.03, "Q8_0": 0.06}, rel=1e-3)
    assert found["output"] == pytest.approx({"Q4_K": 0.04, "Q8_0": 0.05}, rel=1e-3)
    assert found["layer_prefill"] == pytest.approx({"Q4_K": 0.0075, "Q8_0": 0.015}, rel=1e-3)
