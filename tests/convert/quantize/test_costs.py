"""The shipped cost tables are complete, and an invalid file is refused."""

import json
import platform

import llama_cpp
import pytest
from thirteen.convert.quantize.costs import (
    TARGETS,
    CostTable,
    costs_for,
    find_costs,
    host_costs,
    host_target,
    ordinary_costs,
    read_costs,
)
from thirteen.errors import FileError, OptionError

GOOD = {"target": "x86", "layer": {"Q4_K": 0.03, "Q6_K": 0.05}, "output": {"Q4_K": 0.04}}


@pytest.fixture
def cost_file(tmp_path):
    def write(value):
        path = tmp_path / "costs.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
        return path

    return write


@pytest.mark.parametrize("target", TARGETS)
def test_every_shipped_table_is_complete(target):
    table = costs_for(target)
    assert (table.target, table.library) == (target, "llama.cpp")
    for costs in (table.layer, table.output):
        assert "Q4_K" in costs and len(costs) >= 7
        assert all(cost > 0 for cost in costs.values())


def test_a_table_is_read_from_a_file(cost_file):
    path = cost_file(GOOD | {"library": "ik", "date": "today"})
    assert find_costs("x86") == costs_for("x86")
    assert find_costs(str(path)) == CostTable("x86", GOOD["layer"], GOOD["output"], {}, "ik")


def test_costs_of_an_answer_include_its_share_of_the_prompt(cost_file):
    prefill = {"layer_prefill": {"Q4_K": 0.5, "Q8_0": 0.25}}
    table = read_costs(cost_file(GOOD | {"layer": {"Q4_K": 1, "Q8_0": 2, "Q6_K": 3}} | prefill))
    answers = ordinary_costs(table)
    assert answers.layer == {"Q4_K": 1 + 2 * 0.5, "Q8_0": 2 + 2 * 0.25}  # Q6_K: its prefill is unknown
    assert answers.output == table.output  # computed once for a prompt, as for a written token
    assert ordinary_costs(costs_for("x86")) == costs_for("x86")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        (GOOD | {"layer": [1]}, r"layer: \[1\] should be an object"),
        (GOOD | {"layer": {"Q4_K": 1, "Q4_X": 1}}, "layer has Q4_X: 1; it must have ggml types"),
        (GOOD | {"layer": {"Q4_K": 0}}, "layer has Q4_K: 0; .* numbers above 0 and below 1e"),
        (GOOD | {"target": "gpu"}, "target must be one of x86, x86-avx512, arm"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(cost_file, content, message):
    path = cost_file(content)
    with pytest.raises(FileError, match=f"^{path}: .*{message}[^\n]*$"):
        read_costs(path)


def test_a_missing_file_and_an_unknown_target_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"none\.json: No such file"):
        read_costs(tmp_path / "none.json")
    with pytest.raises(OptionError, match="target 'gpu': not a target"):
        costs_for("gpu")


@pytest.mark.parametrize(
    ("machine", "build", "target"),
    [
        ("x86_64", "AVX2 = 1 | AVX512 = 1 | AMX_INT8 = 1 | ", "x86-amx"),
        ("x86_64", "AVX2 = 1 | AVX512 = 1 | ", "x86-avx512"),
        ("arm64", "", "arm"),
        ("riscv64", "", "any"),
    ],
)
def test_the_host_has_a_target_and_the_tables_for_it(monkeypatch, machine, build, target):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", build.encode)
    assert host_target() == target
    found = host_costs("llama.cpp", "ik")
    assert found[0] == costs_for(target)
    in_ik = target in {"x86-amx", "x86-avx512"}
    assert [one.library for one in found] == ["llama.cpp", "ik"][: 1 + in_ik]
    assert host_costs("ik")[0].library == ("ik" if in_ik else "llama.cpp")
