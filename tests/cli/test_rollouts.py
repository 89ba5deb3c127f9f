"""The command `thirteen rollouts`: a file that resumes, with an adapter, and errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from thirteen.convert.adapter.adapter import adapter_sha256
from thirteen.convert.adapter.tinylora_folder import write_tinylora_folder
from thirteen.convert.pipeline import convert
from thirteen.convert.provenance import SourceIds
from thirteen.workflows.adapter_resolver import resolve_basis

from ..commands import CommandResult, Commands

ROWS = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(2, 14)]


@pytest.fixture(scope="module")
def env(base, tmp_path_factory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("env")
    convert(base("llama"), folder / "model.gguf", quantization="F32", ids=SourceIds("tiny"))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(folder / "cache"))
        with Commands() as thirteen:
            yield SimpleNamespace(folder=folder, base=base("llama"), thirteen=thirteen)


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
