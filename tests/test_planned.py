"""A file of a given size by the command line, from a model's own importance: the budget, and bad input."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .commands import Commands

TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"


@pytest.fixture(scope="module")
def thirteen() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.fixture(scope="module")
def made(
    thirteen: Commands, base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A tiny model, and its importance."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "texts.jsonl").write_text(TEXT, "utf-8")
    importance = folder / "importance.gguf"
    how = ("--calibration", folder / "texts.jsonl", "--threads", "1")
    done = thirteen("importance", base("llama"), "--output", importance, *how)
    assert done.status == 0, done.stderr
    return base("llama"), importance


@pytest.mark.parametrize("bits", [5.0, 6.5, 9.0])
def test_the_file_has_the_size_asked_for_and_plan_foretells_it(
    thirteen: Commands, made: tuple[Path, Path], tmp_path: Path, bits: float
) -> None:
    model, importance = made
    overhead = thirteen("convert", model, "--type", "Q8_0", "--output", tmp_path / "q8.gguf", "--json")
    whole = json.loads(overhead.stdout)
    weights = 8 * (whole["file_bytes"]) / whole["bits_per_weight"]
    size = f"{int(whole['file_bytes'] - weights * (whole['bits_per_weight'] - bits) / 8) / 1000}KB"
    how = ("--size", size, "--importance", importance, "--target", "x86", "--prefer", "quality")
    planned = thirteen("plan", model, *how, "--json")
    if planned.status:
        assert "the smallest file possible" in planned.stderr
        return
    done = thirteen("convert", model, *how, "--output", tmp_path / "a.gguf", "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    asked = report["prediction"]["budget_bytes"]
    assert report["file_bytes"] == report["prediction"]["file_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert 0.985 * asked <= report["file_bytes"] <= asked
    assert json.loads(planned.stdout)["types"] == report["types"]


@pytest.mark.parametrize("size", ["600", "-1MB", "1KB", "90GB"])
def test_a_bad_size_is_one_line(
    thirteen: Commands, made: tuple[Path, Path], size: str, tmp_path: Path
) -> None:
    model, importance = made
    target = tmp_path / "a.gguf"
    done = thirteen("convert", model, "--size", size, "--importance", importance, "--output", target)
    assert done.status == 2
    assert done.stderr.count("\n") == 1 and "--size" in done.stderr and size in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "no JSON\n", "[1]\n"])
def test_a_bad_calibration_file_is_one_line(
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
