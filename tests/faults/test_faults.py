"""A fault at each point where a run changes files: what is then on disk, and that the next run succeeds.

`pytest -s` prints how many points there are.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from peft import LoraConfig
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform

from ..commands import CommandResult, Commands
from ..convert.peft_adapters import save_random_adapter
from ..json_lines import write_rows
from .faulty_command import FULL_DISK, KILL, KINDS

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="the name of an open folder is read from /proc"),
]

ROWS = [{"question": f"{n} + {n}?", "solution": f"It is {2 * n}.", "answer": str(2 * n)} for n in range(9)]
TEXT = {"text": "Three pens cost $3.60, so one pen costs $1.20. " * 4}
# What a run may leave until the next one, and no longer.
TEMPORARY = re.compile(r"(.*/)?\..*|out/answers\.jsonl\.part|cache/(importance|hidden)-[0-9a-f]{16}(/.*)?")
OLD, JOURNAL = "out/model.gguf", "out/answers.jsonl.part"  # replaced; append-only
RUNS = {
    "convert": f"convert {{inputs}}/tiny.gguf --type Q8_0 --threads 1 --output {OLD} --force",
    "importance": "convert {inputs}/tiny.gguf --importance out/i.gguf --texts {inputs}/texts.jsonl --dry-run",
    "merge": "convert {inputs}/base --adapter {inputs}/lora --to-safetensors --output out/merged",
    "batch": "batch {inputs}/rows.jsonl {inputs}/tiny.gguf -o out/answers.jsonl --max-tokens 3 --threads 1",
    "adapter cache": "ask {inputs}/tiny.gguf 1+1? --adapter {inputs}/lora --max-tokens 3 --threads 1",
}

Tree = dict[str, bytes | None]  # files, and folders as None, by path


@pytest.fixture(scope="module")
def commands():
    with Commands("faults.faulty_command") as forked:
        yield forked


@pytest.fixture(scope="module")
def inputs(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(base("llama"), folder / "base")
    save_random_adapter(folder / "base", LoraConfig(r=2, target_modules=["q_proj"]), folder / "lora")
    convert(Recipe(folder / "base", folder / "tiny.gguf", Uniform("F32")))
    write_rows(folder / "rows.jsonl", ROWS)
    write_rows(folder / "texts.jsonl", [TEXT])
    return folder


@dataclass
class Faulty:
    """A run, first without a fault."""

    commands: Commands
    words: list[str]
    folder: Path  # with a folder for each time that it is run

    def __post_init__(self) -> None:
        root = self.prepare("undisturbed")
        done, self.points = self(root)
        assert done.status == 0, done
        self.expected = tree(root)

    def prepare(self, name: str) -> Path:
        root = self.folder / name
        for made in ("out", "tmp", "cache"):
            (root / made).mkdir(parents=True, mode=0o700)
        (root / OLD).write_bytes(b"old")
        return root

    def __call__(self, root: Path, kind: str = KILL, at: int = -1) -> tuple[CommandResult, list[str]]:
        """Run it in a prepared folder; returns how it ended, and its points unless it was killed."""
        points = self.folder / "points.json"
        points.write_text("[]")
        return self.commands(root, kind, at, points, *self.words), json.loads(points.read_text())


@pytest.fixture(scope="module")
def faulty(commands, inputs, tmp_path_factory) -> Callable[[str], Faulty]:
    return cache(
        lambda name: Faulty(
            commands, RUNS[name].format(inputs=inputs).split(), tmp_path_factory.mktemp("runs")
        )
    )


def tree(root: Path) -> Tree:
    """What is in a folder, without durations."""
    return {
        str(path.relative_to(root)): None
        if path.is_dir()
        else re.sub(rb'"(seconds|tokens_s)": [^,}]*', b"", path.read_bytes())
        for path in root.rglob("*")
    }


def check_end(done: CommandResult, kind: str) -> None:
    """Check that the fault killed the run, ended it with one line that names a file, or did no harm."""
    if kind == KILL:
        assert done.status == -9
        return
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    if done.status:
        assert done.status == 2
        assert re.match(r"error: (\S*/)?(out|cache|tmp)(/\S+)?: .*No space left on device", errors[-1])


def check_files(found: Tree, expected: Tree) -> None:
    """Check that every file is old, complete or temporary."""
    for path, data in found.items():
        if path == JOURNAL:
            continue  # the next run reads it
        if path in expected:
            assert data in (expected[path], b"old" if path == OLD else expected[path]), f"{path} is half"
        else:
            assert TEMPORARY.fullmatch(path), f"{path} was left"
    merged = {name for name in expected if name.startswith("out/merged")}
    assert "out/merged" not in found or merged <= found.keys(), "the folder is not there as a whole"


def check_fault(run: Faulty, kind: str, at: int) -> None:
    """Run with a fault, check what it left, and run again."""
    root = run.prepare(f"{kind}-{at}")
    done, _ = run(root, kind, at)
    found = tree(root)
    check_end(done, kind)
    check_files(found, run.expected)
    if found != run.expected:
        again, _ = run(root)
        assert again.status == 0, again
        left, paths = tree(root), found.keys() | run.expected
        wrong = {path for path in paths if left.get(path, b"none") != run.expected.get(path, b"none")}
        # What is left goes hours later.
        assert not {path for path in wrong if not TEMPORARY.fullmatch(path)}
    shutil.rmtree(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNS)
def test_a_fault_leaves_nothing_half_written_and_the_next_run_goes_on(name, kind, faulty):
    run, failures = faulty(name), []
    refused = ("open", "os.mkdir") if kind == FULL_DISK else ("",)
    points = [at for at, point in enumerate(run.points) if point.startswith(refused)]
    print(f"{name}, {kind}: {len(points)} points")
    for at in points:
        try:
            check_fault(run, kind, at)
        except AssertionError as error:
            failures.append(f"{run.points[at]} ({at}): {error}")
    assert points and not failures, "\n".join(failures)
