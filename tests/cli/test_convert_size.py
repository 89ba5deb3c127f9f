"""Conversion to a given size on the command line: the budget, predictions and bad input."""

import json
import subprocess
import sys

import pytest

TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"


@pytest.fixture(scope="module")
def made(thirteen, base, tmp_path_factory):
    """A tiny model and its importance file."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "texts.jsonl").write_text(TEXT, "utf-8")
    importance = folder / "importance.gguf"
    options = ("--calibration", folder / "texts.jsonl", "--threads", "1")
    done = thirteen("importance", base("llama"), "--output", importance, *options)
    assert done.status == 0, done.stderr
    return base("llama"), importance


def test_the_file_has_the_requested_size_and_the_planned_types(thirteen, made, tmp_path):
    model, importance = made
    options = ("--size", "9bpw", "--importance", importance, "--target", "x86", "--prefer", "quality")
    planned = thirteen("plan", model, *options, "--json")
    done = thirteen("convert", model, *options, "--output", tmp_path / "a.gguf", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    budget = report["prediction"]["budget_bytes"]
    assert report["file_bytes"] == report["prediction"]["file_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert 0.95 * budget <= report["file_bytes"] <= budget
    assert json.loads(planned.stdout)["types"] == report["types"]
    searched = thirteen(
        "convert", model, *options, "--effort", "thorough", "-o", tmp_path / "b.gguf", "--json"
    )
    thorough = json.loads(searched.stdout)
    assert thorough["types"] == report["types"] and thorough["sha256"] != report["sha256"]
    assert thorough["file_bytes"] <= budget


def test_a_conversion_loads_no_benchmark(made, tmp_path):
    """Nor does its measured fidelity, of which `bench` only prints the table."""
    model, importance = made
    argv = ["convert", model, "--size", "9bpw", "--importance", importance, "--fidelity"]
    code = (
        "import sys; from thirteen.cli.main import main\ntry: main()\n"
        "finally: print([name for name in sys.modules if name.startswith('thirteen.bench')])"
    )
    command = [sys.executable, "-c", code, *map(str, argv), "-o", str(tmp_path / "a.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "perplexity" in done.stdout and done.stdout.endswith("[]\n"), done


def test_a_plan_goes_by_the_costs_that_are_given(thirteen, made, tmp_path):
    """The speed is relative to Q4_K, a type that matrices of this width cannot have."""
    cost = {"layer": 2.0, "layer_prefill": 3.0}
    costs = {part: {"Q4_K": 1.0, "Q4_0": other, "Q8_0": other} for part, other in cost.items()}
    costs["output"] = dict.fromkeys(("Q4_K", "Q4_0", "Q8_0"), 1e-9)
    source = dict.fromkeys(("cpu", "date", "build"), "")
    (table := tmp_path / "costs.json").write_text(json.dumps({"target": "x86", **source, **costs}))
    model, importance = made
    sized = ("--size", "9bpw", "--importance", importance, "--prefer", "quality", "--costs", table)
    planned = thirteen("plan", model, *sized, "--json")
    assert planned.status == 0, planned.stderr
    assert "planned size" in thirteen("plan", model, *sized).stdout.splitlines()[-1]
    assert json.loads(planned.stdout)["prediction"]["decode_speed"] == pytest.approx(
        (1 + 2 * 1) / (2 + 2 * 3)
    )


def test_the_importance_of_another_model_is_refused(thirteen, made, base, tmp_path):
    words = ("--type", "Q4_0", "--importance", made[1], "--output", tmp_path / "a.gguf")
    done = thirteen("convert", base("qwen2"), *words)
    assert done.status == 2 and "another model" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
