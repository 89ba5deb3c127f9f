"""Costs of the types on this processor: measured once, and the shipped ones where that fails."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from thirteen.convert.quantize.costs import costs_for, host_target, ordinary_costs
from thirteen.errors import OutputError
from thirteen.quality.costs import machine_costs as module
from thirteen.quality.costs.machine_costs import costs_file, machine_costs
from thirteen.stats.interval import Interval

SHIPPED = {"target": "x86", "cpu": "here", "date": "today", "build": "1", "layer": {"Q4_K": 1.0, "Q2_K": 0.5}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each measurement adds an item; the costs are those of SHIPPED."""
    runs: list[int] = []

    def run(width: float = 0.01, **_: object) -> SimpleNamespace:
        runs.append(1)
        ratio = Interval(1 - width, 1.0, 1 + width)
        return SimpleNamespace(costs=[SimpleNamespace(type="Q2_K", layer=SimpleNamespace(ratio=ratio))])

    def write(_: object, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(SHIPPED | {"output": SHIPPED["layer"]}))

    monkeypatch.setattr(module, "run_type_costs", run)
    monkeypatch.setattr(module, "write_costs", write)
    return runs


def test_costs_are_measured_once(measured: list[int]) -> None:
    assert machine_costs().layer == machine_costs().layer == SHIPPED["layer"]
    assert measured == [1]


def test_a_damaged_file_is_measured_again(measured: list[int]) -> None:
    machine_costs()
    costs_file().write_text("{}")
    assert machine_costs().layer == SHIPPED["layer"] and measured == [1, 1]


def test_costs_that_other_programs_disturbed_are_not_kept(
    measured: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = module.run_type_costs
    monkeypatch.setattr(module, "run_type_costs", lambda **options: run(0.3, **options))
    assert machine_costs() == costs_for(host_target())
    assert not costs_file().exists() and "Q2_K: too noisy" in caplog.text


def test_without_room_for_the_models_the_shipped_costs_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(module, "run_type_costs", full)
    assert machine_costs() == costs_for(host_target())


def test_plans_are_for_ordinary_questions_where_prefill_is_known() -> None:
    table = costs_for("x86-avx512")
    assert ordinary_costs(table).layer["Q2_K"] == table.layer["Q2_K"] + 2 * table.layer_prefill["Q2_K"]
    assert ordinary_costs(costs_for("x86")) == costs_for("x86")
