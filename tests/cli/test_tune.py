"""The command `thirteen tune`: a run with its card and code, resumption, and errors."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from thirteen.convert.adapter.adapter import adapter_sha256
from thirteen.convert.adapter.short_code import decode_short_code
from thirteen.convert.adapter.tinylora_folder import write_tinylora_folder
from thirteen.convert.pipeline import convert
from thirteen.convert.provenance import SourceIds
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
    "--check-every",
    1,
    "--sigma",
    0.5,
    "--threads",
    1,
)


@pytest.fixture(scope="module")
def env(base, tmp_path_factory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("env")
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
    env, out: Path, *more: object, data: str = "rows", model: str = "model.gguf", **limits: int
) -> CommandResult:
    files = (env.folder / model, "--base", env.base, "--data", env.folder / f"{data}.jsonl", "-o", out)
    return env.thirteen("tune", *files, *SHORT, *SMALL, *more, **limits)


def test_a_run_writes_an_adapter_with_a_card_and_resumes(env):
    out = env.folder / "out"
    done = tune(env, out, "--json")
    assert done.status == 0, done
    result = json.loads(done.stdout)
    assert result["generations"] == 2 and result["held_out"]["rows"] == 4 and len(result["numbers"]) == 13
    assert result["swaps"] >= 8 and result["swap_s"] > 0
    card = (out / "README.md").read_text()
    assert "thirteen tune" in card and "questions put to candidates | 32 of rows.jsonl" in card
    code = decode_short_code(card.split("As a code, exact: `")[1].split("`")[0])
    assert code.numbers.tolist() == result["numbers"]
    assert done.stderr.count("generation ") == 2 and "warning: no check was better" in done.stderr
    zeros = not any(result["numbers"])  # no check was better
    shown = env.thirteen("adapter", "show", out)
    assert shown.status == (2 if zeros else 0), shown
    again = tune(env, out, "--json")
    assert again.stderr.count("resumed") == 2
    assert json.loads(again.stdout)["numbers"] == result["numbers"]


def test_a_run_starts_from_an_adapter_and_another_run_is_refused_there(env):
    numbers, out = np.full(13, 0.25, np.float32), env.folder / "second"
    write_tinylora_folder(resolve_basis(str(env.base)), numbers, env.folder / "first", "tiny")
    started = tune(env, out, "--json", "--start", env.folder / "first")
    result = json.loads(started.stdout)
    assert "warning" in started.stderr and result["numbers"] == numbers.tolist()  # no check was better
    assert "was better than" in started.stderr and str(env.folder / "first") in started.stderr
    other = tune(env, out)
    assert other.status == 2 and "start is [0.25" in other.stderr and other.stderr.count("\n") == 1, other
    missing = tune(env, out, "--start", "nowhere")
    assert missing.status == 2 and "no adapter 'nowhere'" in missing.stderr, missing


@pytest.mark.parametrize(
    ("files", "message"),
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
def test_a_bad_input_is_one_line(env, files, message):
    done = tune(env, env.folder / "no", **files)
    assert done.status == 2 and done.stderr.startswith("error: ") and message in done.stderr, done
    assert done.stderr.count("\n") == 1
    assert not (env.folder / "no").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sigma", "-1"), "sigma must be above 0"),
    ],
)
def test_invalid_options_are_refused(env, options, message):
    done = tune(env, env.folder / "no", *options)
    assert done.status == 2 and message in done.stderr and done.stderr.count("\n") == 1, done


def test_no_question_is_in_two_parts(env, tmp_path):
    """Rows that repeat a held-out question are not searched on."""
    repeated = tmp_path / "repeated.jsonl"
    repeated.write_text("".join(json.dumps(row) + "\n" for row in (ROWS * 2)))
    held = ("--data", repeated, "--held-out-data", env.folder / "few.jsonl", "--held-out", 9)
    done = tune(env, tmp_path / "no", *held, "--questions", 39)
    assert done.status == 2 and "--questions 39: " in done.stderr, done
    checks = tune(env, tmp_path / "no", "--checks", 27)
    assert checks.status == 2 and "--checks 27: must be at least 1 and less than the 26 rows" in checks.stderr


def test_a_full_disk_is_one_line_and_the_run_resumes(env):
    out = env.folder / "full"
    done = tune(env, out, file_limit=8192)
    assert done.status == 2 and done.stderr.splitlines()[-1].startswith("error: "), done
    assert tune(env, out).status == 0


def rollouts(env, out: Path, *more: object) -> CommandResult:
    options = ("--samples", 2, "--max-tokens", 4, "--threads", 1, "--questions", env.folder / "rows.jsonl")
    return env.thirteen("rollouts", env.folder / "model.gguf", *options, "-o", out, *more)


def test_rollouts_are_sampled_and_resumed(env):
    path = env.folder / "rollouts.jsonl"
    done = rollouts(env, path, "--limit", 12, "--json")
    summary = json.loads(done.stdout)
    assert done.status == 0 and (summary["questions"], summary["never_right"]) == (12, 12), done
    assert "warning: no question is sometimes right" in done.stderr
    assert json.loads(rollouts(env, path, "--limit", 12, "--json").stdout) == summary
    again = rollouts(env, path, "--limit", 12, "--temperature", 0.9)
    assert again.status == 2 and "temperature is 0.7 in the file, 0.9 now" in again.stderr, again


def test_rollouts_with_an_adapter_name_its_folder(env):
    lora, plain, adapted = (env.folder / name for name in ("large.gguf", "plain.jsonl", "adapted.jsonl"))
    numbers, folder = np.full(13, 3.0), env.folder / "large"
    write_tinylora_folder(resolve_basis(str(env.base)), numbers, folder, "tiny")
    exported = env.thirteen("adapter", "export", folder, "--base", env.base, "-o", lora)
    assert exported.status == 0, exported
    assert rollouts(env, plain, "--limit", 4).status == 0
    done = rollouts(env, adapted, "--limit", 4, "--adapter", lora)
    assert done.status == 0, done
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (plain, adapted)]
    assert [one["solutions"] for one in lines[0][1:]] != [one["solutions"] for one in lines[1][1:]]
    sampled_by = [one[0]["rollouts"].get("peft_sha256") for one in lines]
    assert sampled_by == [None, adapter_sha256(folder)]


def test_rollouts_that_cannot_be_written_are_one_line(env):
    assert rollouts(env, env.folder / "x", "--samples", 1).status == 2
    questions = env.folder / "rows.jsonl"
    own = rollouts(env, questions)
    assert own.status == 2 and "rows.jsonl: is an input of this command" in own.stderr, own
    assert len(questions.read_text().splitlines()) == len(ROWS)


def test_a_readme_that_is_no_card_is_not_overwritten(env, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    done = env.thirteen("tune", "--data", tmp_path / "absent.jsonl", "-o", tmp_path)
    assert done.status == 2 and "README.md: is not of an adapter" in done.stderr, done
    assert (tmp_path / "README.md").read_text() == "mine"
