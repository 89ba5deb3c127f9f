"""A fault at each point where a run changes files: what is then on disk, and that the next run goes on.

One point of each run and kind of fault by default, always the same; all of them in `make exhaustive`, which
with `pytest -s` prints how many there are.
"""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.files.safetensors import write_safetensors

from ..commands import CommandResult, Commands
from ..conftest import EXHAUSTIVE
from ..runtime import conftest as tiny_model
from .fault_points import BAD_DISK, FULL_DISK, KILL, KINDS, can_fail

pytestmark = pytest.mark.slow

if sys.platform != "linux":
    pytest.skip("the name of an open file is read from /proc", allow_module_level=True)

REASONS = {FULL_DISK: "No space left on device", BAD_DISK: "Input/output error"}
ROWS = [{"question": f"{n} + {n}?", "solution": f"It is {2 * n}.", "answer": str(2 * n)} for n in range(9)]
TEXT = {"text": "Three pens cost $3.60, so one pen costs $1.20. " * 4}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": tiny_model.tensors()["token_embd.weight"].shape[0],
    "hidden_size": tiny_model.EMBEDDING,
    "intermediate_size": tiny_model.FEED_FORWARD,
    "num_hidden_layers": tiny_model.LAYERS,
    "num_attention_heads": tiny_model.HEADS,
    "num_key_value_heads": tiny_model.KEY_HEADS,
    "head_dim": tiny_model.HEAD,
    "max_position_embeddings": tiny_model.CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
# What a run may leave until the next one, and no longer.
TEMPORARY = re.compile(r"(.*/)?\..*|out/answers\.jsonl\.part|cache/(importance|hidden)-[0-9a-f]{16}(/.*)?")

Tree = dict[str, bytes | None]  # files, and folders as None, by path


@dataclass(frozen=True)
class Run:
    """A command line, in which {inputs} is the folder of inputs.

    Attributes:
        command: its words.
        old: files that the run replaces.
        journals: append-only files, whose lines stay.
    """

    command: str
    old: tuple[str, ...] = ()
    journals: tuple[str, ...] = ()


RUNS = {
    "convert": Run(
        "convert {inputs}/tiny.gguf --type Q8_0 --threads 1 --output out/model.gguf --force",
        old=("out/model.gguf",),
    ),
    "merge": Run("convert {inputs}/base --adapter {inputs}/lora --to-safetensors --output out/merged"),
    "batch": Run(
        "batch {inputs}/rows.jsonl {inputs}/tiny.gguf --out out/answers.jsonl --max-tokens 3 --threads 1",
        journals=("out/answers.jsonl.part",),
    ),
    "importance cache": Run("importance-cache {inputs}/tiny.gguf {inputs}/texts.jsonl"),
    "adapter cache": Run("adapter-cache {inputs}/lora {inputs}/tiny.gguf"),
}


@pytest.fixture(scope="module")
def commands():
    with Commands("faults.faulty_command") as forked:
        yield forked


@pytest.fixture(scope="module")
def inputs(commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tiny_model.write_gguf(folder / "tiny.gguf", {}, {})
    write_base(folder / "base", folder / "tiny.gguf")
    write_lora(folder / "lora")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "texts.jsonl").write_text(json.dumps(TEXT) + "\n")
    (folder / "cache").mkdir()
    # The choice of settings is a measurement: it is made once, for all runs.
    first = Faulty(commands, RUNS["batch"], folder, tmp_path_factory.mktemp("first"))
    shutil.copytree(first.folder / "undisturbed" / "cache", folder / "cache", dirs_exist_ok=True)
    return folder


def write_base(folder: Path, model: Path) -> None:
    """Write a model as a folder of safetensors, without a tokenizer."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    gguf = open_checkpoint(model)
    tensors = {name: gguf.rows(name, 0, spec.shape[0]) for name, spec in gguf.specs.items()}
    write_safetensors(folder / "model.safetensors", tensors, {})


def write_lora(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    shapes = {"A": (2, tiny_model.EMBEDDING), "B": (tiny_model.EMBEDDING, 2)}
    random_ = np.random.default_rng(13)
    factors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": random_.normal(
            size=shape
        )
        for layer in range(tiny_model.LAYERS)
        for side, shape in shapes.items()
    }
    write_safetensors(folder / "adapter_model.safetensors", factors, {})


class Faulty:
    """A run, without a fault and with one at a chosen point.

    Attributes:
        run: the run.
        folder: holds a folder for each time that it is run.
        points: its points.
        expected: what it leaves.
    """

    def __init__(self, commands: Commands, run: Run, inputs: Path, folder: Path) -> None:
        """Run it without a fault."""
        self._commands, self.run, self._inputs, self.folder = commands, run, inputs, folder
        root = self.prepare("undisturbed")
        done, self.points = self(root)
        assert done.status == 0, done
        assert all(f"fsync {journal}" in self.points for journal in run.journals)
        self.expected = tree(root)

    def prepare(self, name: str) -> Path:
        root = self.folder / name
        shutil.copytree(self._inputs / "cache", root / "cache")
        for made in ("out", "tmp"):
            (root / made).mkdir()
        for old in self.run.old:
            (root / old).write_bytes(b"old")
        return root

    def __call__(self, root: Path, kind: str = KILL, at: int = -1) -> tuple[CommandResult, list[str]]:
        """Run it in a prepared folder; returns how it ended, and its points unless it was killed."""
        points = self.folder / "points.json"
        points.write_text("[]")
        words = self.run.command.format(inputs=self._inputs).split()
        done = self._commands(root, kind, at, points, *words)
        return done, json.loads(points.read_text())

    def chosen(self, kind: str) -> list[int]:
        """The points to try: all, or one, which is the same each time."""
        possible = [at for at, point in enumerate(self.points) if can_fail(kind, point)]
        name = self.run.command.split()[0]
        print(f"{name}, {kind}: {len(possible)} points: {Counter(point.split()[0] for point in self.points)}")
        return possible if EXHAUSTIVE else Random(f"{name} {kind}").sample(possible, 1)


@pytest.fixture(scope="module")
def faulty(commands, inputs, tmp_path_factory):
    return cache(lambda run: Faulty(commands, run, inputs, tmp_path_factory.mktemp("runs")))


def tree(root: Path) -> Tree:
    """What is in a folder, without durations."""
    return {
        str(path.relative_to(root)): None
        if path.is_dir()
        else without_durations(path.name, path.read_bytes())
        for path in root.rglob("*")
    }


def without_durations(name: str, data: bytes) -> bytes:
    if name == "README.md":
        return re.sub(rb"(?m)^\| time \|.*$", b"", data)
    return re.sub(rb'"(seconds|tokens_s)": [^,}]*', b"", data) if name.endswith((".json", ".jsonl")) else data


def check_end(done: CommandResult, kind: str) -> None:
    """Check that the fault killed the run, ended it with one line that names a file, or did no harm."""
    if kind == KILL:
        assert done.status == -9
        return
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("generation ", "warning: "))]
    if done.status == 0:
        assert lines == []
        return
    assert done.status == 2
    (line,) = lines
    assert re.match(r"error: (\S*/)?(out|cache|inputs\d*)(/\S+)?: ", line)
    assert REASONS[kind] in line


def check_files(found: Tree, expected: Tree, run: Run) -> None:
    """Check that every file is old, complete or temporary."""
    for path, data in found.items():
        if path in run.journals and path in expected:
            assert lines(expected, path)[: len(lines(found, path))] == lines(found, path)
        elif path in expected:
            assert data in ({expected[path], b"old"} if path in run.old else {expected[path]}), (
                f"{path} is half"
            )
        else:
            assert TEMPORARY.fullmatch(path), f"{path} was left"
    merged = {name for name in expected if name.startswith("out/merged")}
    assert "out/merged" not in found or merged <= found.keys(), "the folder is not there as a whole"


def lines(found: Tree, path: str) -> list[bytes]:
    """The complete lines of a file, which may be missing."""
    return (found.get(path) or b"").split(b"\n")[:-1]


def differences(found: Tree, expected: Tree) -> set[str]:
    paths = found.keys() | expected
    return {path for path in paths if found.get(path, b"none") != expected.get(path, b"none")}


def check_fault(faulty: Faulty, kind: str, at: int) -> None:
    """Run with a fault, check what it left, and run again."""
    run, expected, points = faulty.run, faulty.expected, faulty.points
    root = faulty.prepare(f"{kind}-{at}")
    done, reached = faulty(root, kind, at)
    found = tree(root)
    check_end(done, kind)
    assert kind == KILL or len(reached) > at, "no fault"
    check_files(found, expected, run)
    if found == expected:
        return
    for journal in run.journals:  # a line is on record when it was flushed
        on_record = points[:at].count(f"fsync {journal}")
        assert len(lines(found, journal)) >= on_record, f"{journal} lost lines"
    again, reached = faulty(root)
    assert again.status == 0, again
    left = differences(tree(root), expected)
    # A folder whose removal failed goes with the next one of its kind, which a filled cache does not need.
    assert not {path for path in left if done.status or not TEMPORARY.fullmatch(path)}
    for journal in run.journals:
        rest = points.count(f"fsync {journal}") - len(lines(found, journal))
        assert reached.count(f"fsync {journal}") == rest, f"{journal}: the run did not go on"
    shutil.rmtree(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RUNS)
def test_a_fault_leaves_nothing_half_written_and_the_next_run_goes_on(name, kind, faulty):
    run, failures = faulty(RUNS[name]), []
    for at in run.chosen(kind):
        try:
            check_fault(run, kind, at)
        except AssertionError as error:
            failures.append(f"{run.points[at]} ({at}): {error}")
    assert not failures, "\n".join(failures)


def test_each_kind_of_change_is_a_point(faulty):
    """Otherwise the tests above would prove nothing."""
    points = [point for name in ("merge", "batch", "importance cache") for point in faulty(RUNS[name]).points]
    changes = {"open", "write", "truncate", "fsync", "replace", "mkdir", "unlink", "rmdir"}
    assert {point.split()[0] for point in points} == changes
