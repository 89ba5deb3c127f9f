"""Costs of the types on this processor: measured once, and the shipped ones where that fails."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from thirteen.convert.quantize.costs import costs_for, host_target, ordinary_costs
from thirteen.errors import FileError, InsufficientMemoryError, OutputError, RequestError
from thirteen.quality.costs import machine_costs as module
from thirteen.quality.costs.machine_costs import costs_file, library_costs, machine_costs
from thirteen.runtime.native import ik_llama_library
from thirteen.runtime.native.ik_llama_library import installed
from thirteen.stats.interval import Interval

SHIPPED = {"target": "x86", "cpu": "here", "date": "today", "build": "1", "layer": {"Q4_K": 1.0, "Q2_K": 0.5}}
# The measurement in a process of its own, of small models.
SMALL = """
from thirteen.quality.costs import machine_costs as module
from thirteen.quality.costs.random_model import ProbeShape
module._TYPES, module._TOGETHER = ("Q8_0", "IQ4_NL"), 1
module._ROUNDS, module._HALF_WIDTH_MAX = 8, 1e9
module._SHAPE = ProbeShape(hidden=256, ffn=512, heads=4, kv_heads=2, head_dim=64, layers=2, vocabulary=1024)
module.main()
"""
with_ik = pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")


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


@with_ik
def test_costs_in_another_library_have_a_file_of_their_own(
    measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THIRTEEN_LIBRARY")
    monkeypatch.setattr(module, "_PROGRAM", SMALL)
    ours, other = library_costs(None)
    assert (ours.library, other.library) == ("llama.cpp", "ik") and ours.layer == SHIPPED["layer"]
    assert other.layer.keys() == other.layer_prefill.keys() == {"Q4_K", "Q8_0", "IQ4_NL"}
    assert json.loads(costs_file("ik").read_bytes())["build"] == "ik-llama-cpp-python 0.1.5"
    monkeypatch.setattr(module, "run_worker", pytest.fail)
    assert library_costs("ik") == [other] and library_costs("llama.cpp") == [ours] and measured == [1]


@with_ik
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "the measurement ended with SIGABRT"),
        ("import time; time.sleep(60)", "timed out after 1 seconds"),
        ('print(\'{"error": "it is too noisy"}\'); raise SystemExit(2)', "it is too noisy"),
    ],
)
def test_where_another_library_cannot_be_timed_the_costs_are_llama_cpps(
    program: str,
    reason: str,
    measured: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_PROGRAM", program)
    monkeypatch.setattr(module, "_WALL_S", 1 if "sleep" in program else 120)
    assert library_costs("ik") == [machine_costs()] and not costs_file("ik").exists()
    assert re.search(f"costs of types in ik are not measured: .*{reason}; llama.cpp's are used", caplog.text)


def test_a_library_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"library must be one of llama\.cpp, ik or auto, not 'no'"):
        library_costs("no")
    monkeypatch.setattr(ik_llama_library, "installed", lambda: False)
    with pytest.raises(FileError, match=r"ik_llama\.cpp is not installed: pip install"):
        library_costs("ik")


@pytest.mark.parametrize(
    "error", [OutputError("the disk is full"), InsufficientMemoryError("too little memory")]
)
def test_without_room_for_the_models_the_shipped_costs_are_used(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little memory `convert --size` ended with an error, each time."""

    def full(**_: object) -> None:
        raise error

    monkeypatch.setattr(module, "run_type_costs", full)
    assert machine_costs() == costs_for(host_target())


def test_plans_are_for_ordinary_questions_where_prefill_is_known() -> None:
    table = costs_for("x86-avx512")
    assert ordinary_costs(table).layer["Q2_K"] == table.layer["Q2_K"] + 2 * table.layer_prefill["Q2_K"]
    assert ordinary_costs(costs_for("x86")) == costs_for("x86")
