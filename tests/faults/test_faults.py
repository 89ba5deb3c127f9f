"""A fault at each point where a run changes files: what is then on disk, and that the next run goes on.

By default a few points of each run, always the same. All of them, with their number:
THIRTEEN_FAULTS=all pytest -s tests/faults
"""

import json
import os
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.files.safetensors import write_safetensors

from ..commands import CommandResult, Commands
from ..runtime import conftest as tiny_model
from . import fault_points
from .fault_points import BAD_DISK, FULL_DISK, KILL, NO_MEMORY, can_fail

if sys.platform != "linux":
    pytest.skip("the name of an open file is read from /proc", allow_module_level=True)

ALL_POINTS = os.environ.get("THIRTEEN_FAULTS") == "all"
ROWS = [{"question": f"{n} + {n}?", "solution": f"It is {2 * n}.", "answer": str(2 * n)} for n in range(9)]
TEXT = {"text": "Three pens cost $3.60, so one pen costs $1.20. " * 4}
VOCAB = 260
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": VOCAB,
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
# What a run may leave in a folder until the next one, and no longer.
TEMPORARY = re.compile(r"(.*/)?\..*|out/answers\.jsonl\.part|cache/importance-[0-9a-f]{16}(/.*)?")

Tree = dict[str, bytes | None]  # files, and folders as None, by path


@dataclass(frozen=True)
class Run:
    """A command line, for which {inputs} is the folder of inputs.

    Attributes:
        command: its words.
        samples: points that are tried with each kind of fault by default.
        old: files that the run replaces.
        journals: append-only files, whose lines stay.
    """

    command: str
    samples: int
    old: tuple[str, ...] = ()
    journals: tuple[str, ...] = ()

    def words(self, inputs: Path) -> list[str]:
        return self.command.format(inputs=inputs).split()


RUNS = {
    "convert": Run(
        "convert {inputs}/tiny.gguf --type Q8_0 --threads 1 --output out/model.gguf --report out/report.json",
        samples=4,
        old=("out/model.gguf", "out/report.json"),
    ),
    "merge": Run("merge {inputs}/base --adapter {inputs}/lora --out out/merged", samples=4),
    "batch": Run(
        "batch {inputs}/rows.jsonl {inputs}/tiny.gguf --out out/answers.jsonl --max-tokens 3 --threads 1",
        samples=4,
        journals=("out/answers.jsonl.part",),
    ),
    "tune": Run(
        "tune {inputs}/tiny.gguf --base {inputs}/tiny.gguf --data {inputs}/rows.jsonl --output out/adapter "
        "--questions 2 --checks 2 --held-out 2 --population 4 --generations 2 --check-every 1 --sigma 0.5 "
        "--max-tokens 3 --context 128 --slots 2 --threads 1",
        samples=3,
        journals=("out/adapter/generations.jsonl", "out/adapter/held-out.jsonl"),
    ),
    "importance": Run("importance-cache {inputs}/tiny.gguf {inputs}/texts.jsonl", samples=2),
    "vocabulary": Run("vocabulary-cache {inputs}/tiny.gguf {inputs}/texts.jsonl", samples=2),
    "adapter": Run("adapter-cache {inputs}/lora {inputs}/tiny.gguf", samples=2),
}
PREFIXES = Run("prefix-cache out", samples=6)


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands("faults.faulty_command") as forked:
        yield forked


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "tiny.gguf")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "texts.jsonl").write_text(json.dumps(TEXT) + "\n")
    base, lora, random_ = folder / "base", folder / "lora", np.random.default_rng(13)
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    gguf = open_checkpoint(folder / "tiny.gguf")
    tensors = {name: gguf.rows(name, 0, spec.shape[0]) for name, spec in gguf.specs.items()}
    write_safetensors(base / "model.safetensors", tensors, {})
    lora.mkdir()
    (lora / "adapter_config.json").write_text(json.dumps(LORA))
    factors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": shape
        for layer in range(tiny_model.LAYERS)
        for side, shape in {"A": (2, tiny_model.EMBEDDING), "B": (tiny_model.EMBEDDING, 2)}.items()
    }
    write_safetensors(
        lora / "adapter_model.safetensors",
        {name: random_.normal(size=shape).astype(np.float32) for name, shape in factors.items()},
        {},
    )
    (folder / "cache").mkdir()
    return folder


def write_model(path: Path) -> None:
    """Write the tiny model with a merge that a vocabulary can be chosen with."""
    keys, (kinds, types) = tiny_model.metadata(), ("tokens", "token_type")
    added = {kinds: ["th"], types: [1]}
    changed: dict[str, Any] = {
        f"tokenizer.ggml.{name}": (
            keys[f"tokenizer.ggml.{name}"][0] + more,
            *keys[f"tokenizer.ggml.{name}"][1:],
        )
        for name, more in added.items()
    }
    changed["tokenizer.ggml.merges"] = (["t h"], *keys["tokenizer.ggml.merges"][1:])
    changed["llama.vocab_size"] = (VOCAB, keys["llama.vocab_size"][1], None)
    rows = np.random.default_rng(7).normal(0, 0.3, (VOCAB, tiny_model.EMBEDDING)).astype(np.float32)
    tiny_model.write_gguf(path, changed, {"token_embd.weight": rows})


class Faulty:
    """A run, without a fault and with one at a chosen point."""

    def __init__(self, commands: Commands, run: Run, inputs: Path, folder: Path) -> None:
        """Run it without a fault, for its points and the files that it leaves."""
        self._commands, self.run, self._inputs, self._folder = commands, run, inputs, folder
        self.expected: Tree = {}

    def prepare(self, name: str) -> Path:
        """Make the folder of a run. The choice of attention, which is a measurement, is in its cache."""
        root = self._folder / name
        shutil.copytree(self._inputs / "cache", root / "cache")
        for made in ("out", "tmp"):
            (root / made).mkdir()
        for old in self.run.old:
            (root / old).write_bytes(b"old")
        return root

    def __call__(self, root: Path, kind: str = KILL, at: int = -1) -> tuple[CommandResult, list[str]]:
        points = self._folder / "points.json"
        points.write_text("[]")
        done = self._commands(root, kind, at, points, *self.run.words(self._inputs))
        return done, json.loads(points.read_text())

    def undisturbed(self, kind: str) -> list[str]:
        """The points of a run without a fault, and in `expected` what it leaves."""
        root = self.prepare("undisturbed")
        done, points = self(root, kind)
        assert done.status == 0, done
        self.expected = tree(root)
        shutil.rmtree(root)
        return points


@pytest.fixture(scope="module", autouse=True)
def attention(commands: Commands, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Measure and save the choice of attention once, for all runs."""
    first = Faulty(commands, RUNS["batch"], inputs, tmp_path_factory.mktemp("first"))
    root = first.prepare("first")
    done, _ = first(root)
    assert done.status == 0, done
    shutil.copytree(root / "cache", inputs / "cache", dirs_exist_ok=True)


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


def chosen(points: list[str], kind: str, samples: int) -> list[int]:
    """The points to try: all, or some that are the same each time."""
    possible = [at for at, point in enumerate(points) if can_fail(kind, point)]
    if ALL_POINTS:
        return possible
    return sorted(random.Random(f"{kind} {len(points)}").sample(possible, min(samples, len(possible))))


def check_end(done: CommandResult, kind: str, points: list[str], at: int) -> None:
    """Check that the fault ended the run with one line, or not at all."""
    if kind == KILL:
        assert done.status == -9
        return
    assert len(points) > at
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("generation ", "warning: "))]
    if done.status == 0:
        assert lines == []
        return
    assert done.status == 2
    (line,) = lines
    reason = {NO_MEMORY: "memory", FULL_DISK: "No space left", BAD_DISK: "Input/output error"}[kind]
    assert re.match(r"error: \S*(out|cache|tmp|inputs)\S*: ", line) or kind == NO_MEMORY
    assert reason in line and "Traceback" not in line


def check_files(found: Tree, expected: Tree, run: Run) -> None:
    """Check that every file is old, complete or temporary."""
    for path, data in found.items():
        if path in run.journals:
            lines = (data or b"").split(b"\n")[:-1]
            same = path not in expected or lines == (expected[path] or b"").split(b"\n")[: len(lines)]
            assert same, path
        elif path in expected:
            whole = data == expected[path] or (path in run.old and data == b"old")
            assert whole, path
        else:
            assert TEMPORARY.fullmatch(path), path
    if "out/merged" in found:
        assert {path for path in expected if path.startswith("out/merged/")} <= found.keys()


def differs(found: Tree, expected: Tree, path: str) -> bool:
    return path not in found or path not in expected or found[path] != expected[path]


def lines_of(found: Tree, path: str) -> int:
    return (found.get(path) or b"").count(b"\n")


@pytest.mark.parametrize("kind", [KILL, FULL_DISK, BAD_DISK, NO_MEMORY])
@pytest.mark.parametrize("name", RUNS)
def test_a_fault_leaves_nothing_half_written_and_the_next_run_goes_on(
    name: str, kind: str, commands: Commands, inputs: Path, tmp_path: Path
) -> None:
    run = RUNS[name]
    faulty = Faulty(commands, run, inputs, tmp_path)
    points = faulty.undisturbed(kind)
    if kind == NO_MEMORY and not points:
        pytest.skip("no large array")
    tried = chosen(points, kind, run.samples)
    counts = Counter(point.split()[0] for point in points)
    print(f"{name}, {kind}: {len(tried)} of {len(points)} points: {dict(counts)}")
    failures = []
    for at in tried:
        root = faulty.prepare(f"{at}")
        done, reached = faulty(root, kind, at)
        found, where = tree(root), f"{points[at]} ({at}): {done}"
        try:
            check_end(done, kind, reached, at)
            check_files(found, faulty.expected, run)
            for journal in run.journals:
                on_record = points[:at].count(f"fsync {journal}")
                assert lines_of(found, journal) >= on_record or found == faulty.expected
            if found != faulty.expected:
                done, again = faulty(root)
                assert done.status == 0, done
                after, first = tree(root), done.status
                assert not {
                    path for path in after.keys() | faulty.expected if differs(after, faulty.expected, path)
                }
                for journal in run.journals:
                    rest = points.count(f"fsync {journal}") - lines_of(found, journal)
                    assert kind == NO_MEMORY or again.count(f"fsync {journal}") == rest, journal
        except AssertionError as error:
            failures.append(f"{where}\n{error}")
        shutil.rmtree(root)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("kind", [KILL, FULL_DISK, BAD_DISK])
def test_a_fault_in_the_prefix_cache_costs_a_warning_and_no_damaged_state(
    kind: str, commands: Commands, inputs: Path, tmp_path: Path
) -> None:
    faulty = Faulty(commands, PREFIXES, inputs, tmp_path)
    points = faulty.undisturbed(kind)
    assert any(point.startswith("unlink") for point in points), "the folder is full"
    tried = chosen(points, kind, PREFIXES.samples)
    print(f"prefix cache, {kind}: {len(tried)} of {len(points)} points")
    for at in tried:
        root = faulty.prepare(f"{at}")
        done, _ = faulty(root, kind, at)
        assert done.status == (-9 if kind == KILL else 0), (points[at], done)
        assert "Traceback" not in done.stderr and "damaged" not in done.stderr
        for path in root.rglob("*.prefix"):
            assert sha256(path.read_bytes()).hexdigest() == path.stem, points[at]
        done, _ = faulty(root)
        assert (done.status, done.stderr) == (0, ""), (points[at], done)
        for folder in ("base", "other"):
            files = list((root / "out" / folder).iterdir())
            assert files and {path.suffix for path in files} == {".prefix"}, (points[at], files)
            assert sum(path.stat().st_size for path in files) <= 1 << 20
        shutil.rmtree(root)


def test_a_fault_is_counted_at_each_kind_of_point(commands: Commands, inputs: Path, tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    operations = set()
    for name in ("merge", "tune"):
        points = Faulty(commands, RUNS[name], inputs, tmp_path / name).undisturbed(KILL)
        operations |= {point.split()[0] for point in points}
    wanted = {"open", "write", "fsync", "replace", "mkdir", "mmap", "unlink"}
    assert wanted <= operations
    assert set(fault_points.KINDS) == {KILL, FULL_DISK, BAD_DISK, NO_MEMORY}
