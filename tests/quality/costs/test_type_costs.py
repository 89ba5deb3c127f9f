"""Cost of a type, from random models to the table. Nothing here depends on the speed of the machine."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from thirteen.bench.quality_tables import type_costs_table
from thirteen.convert.quantize.costs import PARTS, host_target, read_costs
from thirteen.errors import OutputError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.quality.costs.random_model import ProbeShape, count_matrix_weights, write_uniform_model
from thirteen.quality.costs.type_costs import TYPES, run_type_costs, weight_costs, write_costs
from thirteen.runtime.engine.engine import Engine

pytestmark = pytest.mark.slow

TINY = ProbeShape(hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64, layers=2, vocabulary=1024)
FEW = {"types": ["Q8_0", "IQ3_XXS"], "rounds": 8, "engine": {"threads": 1}, "shape": TINY}
Q4_K, Q8_0 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q8_0


@pytest.fixture(scope="module")
def ticks():
    return []


@pytest.fixture(scope="module")
def report(ticks):
    return run_type_costs(progress=lambda done, total: ticks.append((done, total)), **FEW)


def test_a_report_has_the_reference_and_every_requested_type(report):
    assert [cost.type for cost in report.costs] == ["Q4_K", "Q8_0", "IQ3_XXS"]
    assert [cost.bits_per_weight for cost in report.costs] == [4.5, 8.5, 3.0625]
    assert report.rounds == 8
    for cost in report.costs:
        for part in (getattr(cost, name) for name in PARTS):
            assert part.ns_per_weight > 0
            assert part.gb_per_s == pytest.approx(cost.bits_per_weight / 8 / part.ns_per_weight)
            assert 0 < part.ratio.low <= part.ratio.estimate <= part.ratio.high
    assert report.costs[0].layer.ratio.estimate == report.costs[0].layer_prefill.ratio.estimate == 1
    assert set(report.noisy) <= {"Q8_0", "IQ3_XXS"}
    table = type_costs_table(report)
    assert {row[0] for row in table.rows} == {"Q4_K", "Q8_0", "IQ3_XXS"} and len(table.header) == len(
        table.rows[0]
    )


def test_the_models_are_written_to_the_cache(tmp_path, monkeypatch):
    """They were in the system's temporary folder, which is often in memory."""

    def write(folder, *_):
        raise OutputError(f"in {folder.parent}")

    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    monkeypatch.setattr("thirteen.quality.costs.type_costs.write_probe_models", write)
    with pytest.raises(OutputError, match=f"in {tmp_path}$"):
        run_type_costs(**FEW)
    assert not list(tmp_path.iterdir())


def test_progress_reaches_its_total(ticks, report):
    total = 7 * (1 + 1 + 8)  # models: written, warmed up, eight rounds
    assert ticks == [(done, total) for done in range(1, total + 1)]


def test_the_cost_table_can_be_read_again(report, tmp_path):
    path = tmp_path / "costs.json"
    write_costs(report, path)
    read = read_costs(path)
    assert read.target == host_target()
    for part in PARTS:
        expected = {cost.type: getattr(cost, part).ns_per_weight for cost in report.costs}
        assert getattr(read, part) == pytest.approx(expected, rel=1e-3)
    assert json.loads(path.read_text())["measured"] == json.loads(json.dumps(asdict(report)))
    with pytest.raises(OutputError, match="No such file"):
        write_costs(report, tmp_path / "none" / "costs.json")


def test_costs_are_recovered_from_times_computed_from_them():
    """The times have a drift from round to round that is the same for all models."""
    shape, types = ProbeShape(), (Q4_K, Q8_0)
    phases = np.array([0.25, 1.0])  # relative cost of a token in prefill and decode
    minimal = count_matrix_weights(shape.minimal)
    weights = [count_matrix_weights(model) - minimal for model in (shape.all_layers, shape.all_output)]
    costs = {Q4_K: (0.03, 0.04), Q8_0: (0.06, 0.05)}
    models = [w * ns * 1e-9 for type_ in types for w, ns in zip(weights, costs[type_], strict=True)]
    drift = np.array([1.0, 1.2, 0.9, 1.1, 0.8])[:, None, None]
    times = np.array([0.0, *models])[:, None] * phases * drift + 1e-4  # (rounds, models, 2)
    found = weight_costs(shape, types, times)
    for type_, cost in zip(types, found, strict=True):
        layer, output = costs[type_]
        assert cost.layer.ns_per_weight == pytest.approx(layer)
        assert cost.output.ns_per_weight == pytest.approx(output)
        assert cost.layer.ratio.estimate == pytest.approx(layer / 0.03)
        assert cost.layer.ratio.low == pytest.approx(cost.layer.ratio.high)  # the drift cancels
        assert cost.output.ratio.estimate == pytest.approx(output / 0.04)
        assert cost.layer_prefill.ratio.estimate == pytest.approx(layer / 0.03)


def test_models_no_slower_than_the_minimal_one_still_have_finite_costs():
    times = np.full((5, 3, 2), 1e-3)
    (cost,) = weight_costs(TINY, (Q4_K,), times)
    assert 0 < cost.layer.ns_per_weight < 1e9 and cost.layer.ratio.estimate == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TYPES)
def test_a_random_model_of_each_type_loads_and_has_finite_logits(tmp_path, name):
    type_ = GGMLQuantizationType[name]
    write_uniform_model(tmp_path / "model.gguf", TINY.all_layers, type_, type_)
    header = read_header(tmp_path / "model.gguf")
    matrices = [tensor for tensor in header.tensors.values() if len(tensor.shape) == 2]
    assert {tensor.type for tensor in matrices} == {type_}
    assert sum(np.prod(tensor.shape) for tensor in matrices) == count_matrix_weights(TINY.all_layers)
    with Engine(tmp_path / "model.gguf", context=8, slots=1, threads=1, batch=8) as engine:
        logits = engine.logits((1, 2, 3))
    assert np.isfinite(logits).all() and logits.std() > 0


def test_the_models_are_larger_than_a_cache_and_their_overhead_is_small():
    shape = ProbeShape()
    minimal, layers, output = map(count_matrix_weights, (shape.minimal, shape.all_layers, shape.all_output))
    assert layers - minimal > 150e6 and output - minimal > 130e6
    assert minimal < 0.03 * min(layers, output)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"types": ["Q9_K"]}, RequestError, "'Q9_K': no such type"),
        ({"rounds": 7}, RequestError, "rounds must be an integer of at least 8"),
        ({"engine": {"threads": 0}}, RequestError, "threads"),
    ],
)
def test_invalid_options_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        run_type_costs(**(FEW | change))
