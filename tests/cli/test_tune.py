"""`thirteen tune` as a user meets it: a run, its card and code, and one line for whatever is wrong."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from thirteen.convert.adapter.short_code import decode_short_code
from thirteen.convert.adapter.tinylora_folder import write_tinylora_folder
from thirteen.convert.merged_view import SourceIds
from thirteen.convert.pipeline import convert
from thirteen.workflows.adapter_resolver import resolve_basis

from ..commands import CommandResult, Commands

ROWS = [
    {"question": f"What is {n} and {n}?", "solution": f"{n} + {n} = {2 * n}", "answer": str(2 * n)}
    for n in range(2, 32)
]
SHORT = ("--questions", 4, "--checks", 4, "--held-out", 4, "--population", 4, "--generations", 2)
SMALL = (
    "--max-tokens",
    4,
    "--context",
    128,
    "--slots",
    4,
    "--check-every",
    1,
    "--sigma",
    0.5,
    "--threads",
    1,
)


@pytest.fixture(scope="module")
def place(base, tmp_path_factory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("place")
    convert(base("llama"), folder / "model.gguf", quantization="F32", ids=SourceIds("tiny"))
    convert(base("llama"), folder / "named.gguf", quantization="F32", ids=SourceIds("smollm2-360m"))
    for name, rows in (
        ("rows", ROWS),
        ("unsolved", [{**row, "solution": ""} for row in ROWS]),
        ("unanswered", [{**row, "answer": ""} for row in ROWS]),
        ("few", ROWS[:9]),
        ("empty", []),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    previous = os.environ.get("THIRTEEN_CACHE")
    os.environ["THIRTEEN_CACHE"] = str(folder / "cache")
    try:
        with Commands() as thirteen:
            yield SimpleNamespace(folder=folder, base=base("llama"), thirteen=thirteen)
    finally:
        os.environ.pop("THIRTEEN_CACHE")
        if previous is not None:
            os.environ["THIRTEEN_CACHE"] = previous


def tune(
    place, out: Path, *more: object, data: str = "rows", model: str = "model.gguf", **limits: int
) -> CommandResult:
    files = (place.folder / model, "--base", place.base, "--data", place.folder / f"{data}.jsonl", "-o", out)
    return place.thirteen("tune", *files, *SHORT, *SMALL, *more, **limits)


def test_a_run_ends_with_a_folder_a_card_and_a_journal(place):
    out = place.folder / "out"
    done = tune(place, out, "--json")
    assert done.status == 0, done
    told = json.loads(done.stdout)
    assert told["generations"] == 2 and told["held_out"]["rows"] == 4 and len(told["numbers"]) == 13
    assert told["swaps"] >= 8 and told["swap_s"] > 0
    card = (out / "README.md").read_text()
    assert "thirteen tune" in card and "questions put to candidates | 32 of rows.jsonl" in card
    code = decode_short_code(card.split("As a code, exact: `")[1].split("`")[0])
    assert code.numbers.tolist() == told["numbers"]
    assert done.stderr.count("generation ") == 2 and "warning: no check was better" in done.stderr
    shown = place.thirteen("adapter", "show", out)
    assert shown.status in {0, 2}  # all zero where nothing better was found, which it says
    again = tune(place, out, "--json")
    assert again.stderr.count("on record") == 2
    assert json.loads(again.stdout)["numbers"] == told["numbers"]


def test_a_run_begins_with_an_adapter_and_no_other_run_goes_on_there(place):
    numbers, out = np.full(13, 0.25, np.float32), place.folder / "second"
    write_tinylora_folder(resolve_basis(str(place.base)), numbers, place.folder / "first", "tiny")
    started = tune(place, out, "--json", "--start", place.folder / "first")
    told = json.loads(started.stdout)
    assert "warning" in started.stderr and told["numbers"] == numbers.tolist()  # nothing better was found
    assert "was better than" in started.stderr and str(place.folder / "first") in started.stderr
    other = tune(place, out)
    assert other.status == 2 and "start is [0.25" in other.stderr and other.stderr.count("\n") == 1, other
    missing = tune(place, out, "--start", "nowhere")
    assert missing.status == 2 and "no adapter 'nowhere'" in missing.stderr, missing


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"data": "unsolved"}, "line 1: 'solution' must be a non-empty string"),
        ({"data": "unanswered"}, "line 1: 'answer' is missing"),
        ({"data": "empty"}, "contains no rows"),
        ({"data": "missing"}, "No such file"),
        ({"data": "few"}, "--questions 4: 1 rows are left"),
        ({"model": "missing.gguf"}, "no such file"),
        ({"model": "rows.jsonl"}, "not a GGUF"),
        ({"model": "named.gguf"}, "named.gguf was made from smollm2-360m, but the basis is of"),
    ],
)
def test_what_is_wrong_is_one_line(place, how, says):
    done = tune(place, place.folder / "no", **how)
    assert done.status == 2 and done.stderr.startswith("error: ") and says in done.stderr, done
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--score", "best"), "--score 'best'"),
        (("--sigma", "-1"), "sigma must be above 0"),
    ],
)
def test_options_that_cannot_work(place, options, says):
    done = tune(place, place.folder / "no", *options)
    assert done.status == 2 and says in done.stderr and done.stderr.count("\n") == 1, done


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(place):
    out = place.folder / "full"
    done = tune(place, out, file_limit=8192)
    assert done.status == 2 and done.stderr.splitlines()[-1].startswith("error: "), done
    assert tune(place, out).status == 0
