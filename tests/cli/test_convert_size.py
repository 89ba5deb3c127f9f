"""Conversion to a given size on the command line: the budget, predictions and bad input."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from thirteen.files.hashing import file_sha256

from ..commands import Commands

TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def made(
    thirteen: Commands, base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A tiny model and its importance file."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "texts.jsonl").write_text(TEXT, "utf-8")
    importance = folder / "importance.gguf"
    options = ("--calibration", folder / "texts.jsonl", "--threads", "1")
    done = thirteen("importance", base("llama"), "--output", importance, *options)
    assert done.status == 0, done.stderr
    return base("llama"), importance


@pytest.mark.parametrize("bits", [5.0, 6.5, 9.0])
def test_the_file_has_the_requested_size_and_the_planned_types(
    thirteen: Commands, made: tuple[Path, Path], tmp_path: Path, bits: float
) -> None:
    model, importance = made
    overhead = thirteen("convert", model, "--type", "Q8_0", "--output", tmp_path / "q8.gguf", "--json")
    whole = json.loads(overhead.stdout)
    weights = 8 * (whole["file_bytes"]) / whole["bits_per_weight"]
    size = f"{int(whole['file_bytes'] - weights * (whole['bits_per_weight'] - bits) / 8) / 1000}KB"
    options = ("--size", size, "--importance", importance, "--target", "x86", "--prefer", "quality")
    planned = thirteen("plan", model, *options, "--json")
    if planned.status:
        assert "the smallest file possible" in planned.stderr
        return
    done = thirteen("convert", model, *options, "--output", tmp_path / "a.gguf", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    budget = report["prediction"]["budget_bytes"]
    assert report["file_bytes"] == report["prediction"]["file_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert 0.985 * budget <= report["file_bytes"] <= budget
    assert json.loads(planned.stdout)["types"] == report["types"]


@pytest.mark.parametrize(
    ("options", "speed"),
    [((), 3 / 8), (("--together",), 1 / 4), (("--workload", "prompt=4,answer=1"), (1 + 4 * 1) / (2 + 4 * 3))],
    ids=["ordinary", "together", "workload"],
)
def test_a_plan_goes_by_the_costs_that_are_given(
    thirteen: Commands, made: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], speed: float
) -> None:
    """The speed is relative to Q4_K, a type that matrices of this width cannot have."""
    cost = {"layer": 2.0, "layer_together": 4.0, "layer_prefill": 3.0}
    costs = {part: {"Q4_K": 1.0, "Q4_0": other, "Q8_0": other} for part, other in cost.items()}
    costs |= {part: dict.fromkeys(("Q4_K", "Q4_0", "Q8_0"), 1e-9) for part in ("output", "output_together")}
    source = dict.fromkeys(("cpu", "date", "build"), "")
    (table := tmp_path / "costs.json").write_text(json.dumps({"target": "x86", **source, **costs}))
    model, importance = made
    sized = ("--size", "9bpw", "--importance", importance, "--prefer", "quality", "--costs", table)
    planned = thirteen("plan", model, *sized, *options, "--json")
    assert planned.status == 0, planned.stderr
    assert json.loads(planned.stdout)["prediction"]["decode_speed"] == pytest.approx(speed)


def test_search_scales_changes_the_file_within_its_size(
    thirteen: Commands, made: tuple[Path, Path], tmp_path: Path
) -> None:
    model, importance = made
    options = ("--size", "9bpw", "--importance", importance, "--target", "x86", "--prefer", "quality")
    plain, searched = (
        thirteen("convert", model, *options, *more, "--output", tmp_path / "a.gguf", "--json")
        for more in ((), ("--search-scales",))
    )
    assert searched.status == 0, searched.stderr
    report = json.loads(searched.stdout)
    assert report["types"] == json.loads(plain.stdout)["types"]
    assert report["sha256"] != json.loads(plain.stdout)["sha256"]
    assert report["file_bytes"] <= report["prediction"]["budget_bytes"]


def test_refine_tunes_the_planned_file_within_its_size(
    thirteen: Commands, made: tuple[Path, Path], tmp_path: Path
) -> None:
    model, importance = made
    (tmp_path / "texts.jsonl").write_text(2 * TEXT, "utf-8")
    sized = ("--size", "9bpw", "--importance", importance, "--target", "x86", "--prefer", "quality")
    options = (*sized, "--calibration", tmp_path / "texts.jsonl", "--refine", "0.05", "--threads", "1")
    done = thirteen("convert", model, *options, "--output", tmp_path / "a.gguf", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    assert (
        report["file_bytes"] == (tmp_path / "a.gguf").stat().st_size <= report["prediction"]["budget_bytes"]
    )
    assert report["refine"]["divergence_after"] <= report["refine"]["divergence_before"]
    assert report["sha256"] == report["refine"]["sha256"] == file_sha256(tmp_path / "a.gguf")
    shown = thirteen("convert", model, *options, "--output", tmp_path / "b.gguf")
    assert "nats on text that it did not learn from" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("name", ["llama", "llama untied"])
def test_the_sensitivity_of_the_embedding_is_measured_and_used(
    thirteen: Commands, base: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """A higher sensitivity predicts more loss; an importance file without it can still be used."""
    (tmp_path / "texts.jsonl").write_text(TEXT, "utf-8")
    options = ("--calibration", tmp_path / "texts.jsonl", "--threads", "1")
    done = thirteen("importance", base(name), "--output", tmp_path / "measured.gguf", *options)
    assert done.status == 0, done.stderr
    arrays = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "measured.gguf").tensors}
    sensitivity = "token_embd.weight.look_up_sensitivity"
    assert arrays[sensitivity] > 0 and arrays["token_embd.weight.look_ups"].sum() > 300
    assert ("output.weight.sensitivity" in arrays) == (name == "llama untied")

    def predicted(**changes: np.ndarray | None) -> float:
        path = tmp_path / "changed.gguf"
        rewrite(tmp_path / "measured.gguf", path, {f"token_embd.weight.{k}": v for k, v in changes.items()})
        size = ("--size", "9bpw", "--target", "x86", "--prefer", "quality")
        planned = thirteen("plan", base(name), *size, "--importance", path, "--json")
        assert planned.status == 0, planned.stderr
        return json.loads(planned.stdout)["prediction"]["divergence"]

    measured = predicted()
    assert predicted(look_up_sensitivity=100 * arrays[sensitivity]) > 1.01 * measured > 0
    assert predicted(look_up_sensitivity=None, look_ups=None) > 0


def rewrite(source: Path, target: Path, changes: dict[str, np.ndarray | None]) -> None:
    """Copy an importance file with some tensors replaced; None drops a tensor."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF."):
            kind, *element = field.types
            writer.add_key_value(field.name, field.contents(), kind, element[0] if element else None)
    for tensor in reader.tensors:
        array = changes.get(tensor.name, tensor.data)
        if array is not None:
            writer.add_tensor(tensor.name, np.array(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("size", ["600", "-1MB", "1KB", "90GB"])
def test_the_error_of_a_bad_size_is_one_line(
    thirteen: Commands, made: tuple[Path, Path], size: str, tmp_path: Path
) -> None:
    model, importance = made
    target = tmp_path / "a.gguf"
    done = thirteen("convert", model, "--size", size, "--importance", importance, "--output", target)
    assert done.status == 2
    assert done.stderr.count("\n") == 1 and "--size" in done.stderr and size in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "no JSON\n", "[1]\n"])
def test_the_error_of_a_bad_calibration_file_is_one_line(
    thirteen: Commands, made: tuple[Path, Path], text: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(text, "utf-8")
    done = thirteen("importance", made[0], "--calibration", bad, "--output", tmp_path / "a.gguf")
    assert done.status == 2 and str(bad) in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_the_importance_of_another_model_is_refused(
    thirteen: Commands, made: tuple[Path, Path], base: Callable[[str], Path], tmp_path: Path
) -> None:
    target = tmp_path / "a.gguf"
    done = thirteen("convert", base("qwen2"), "--importance", made[1], "--output", target)
    if done.status:
        assert "another model" in done.stderr and done.stderr.count("\n") == 1
    assert done.status == 2 and not target.exists()
