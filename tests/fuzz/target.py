"""Fuzz targets: what each is, and what every input is held to."""

import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time

from thirteen.errors import ThirteenError

HERE = Path(__file__).parent
BASE = HERE / "corpus/gguf_headers/llama"  # the model of all adapters
SECONDS_MAX = 1.0  # of processor time
MEMORY_FACTOR, MEMORY_BYTES_MAX = 4, 16 << 20  # at most the factor times the input's size, and this
ADDRESS_SPACE_BYTES = 1 << 30  # that a fuzzer's process may use beyond what it has at its start
MESSAGE_CHARACTERS_MAX = 1000

Mutate = Callable[[bytes, Random, tuple[str, ...]], bytes]  # the last are words


@dataclass(frozen=True)
class Target:
    """A reader of input from outside.

    Attributes:
        check: reads an input and returns whether it was accepted. What it raises is a finding.
        max_bytes: size of the largest input.
        words: texts that inputs may contain.
        mutate: makes another input from one, in its structure; empty if it has none.
        memory_bytes_max: a limit of its own.
    """

    check: Callable[[bytes], bool]
    max_bytes: int = 4096
    words: tuple[str, ...] = ()
    mutate: Mutate | None = None
    memory_bytes_max: int = MEMORY_BYTES_MAX


def target_names() -> list[str]:
    """The modules in targets/."""
    return sorted(path.stem for path in (HERE / "targets").glob("*.py"))


def load_target(name: str) -> Target:
    """The target of a module."""
    target = import_module(f".targets.{name}", __package__).TARGET
    assert isinstance(target, Target)
    return target


def corpus(name: str) -> list[Path]:
    """The inputs of a target that are kept in the repository, the smallest first."""
    return sorted((HERE / "corpus" / name).iterdir(), key=lambda path: (path.stat().st_size, path))


def run(target: Target, data: bytes) -> bool:
    """Check an input within the limit on time; returns whether it was accepted.

    Raises:
        BaseException: the input is a finding.
    """
    started = process_time()
    accepted = target.check(data)
    seconds = process_time() - started
    assert seconds <= SECONDS_MAX, f"{len(data)} bytes took {seconds:.1f} s"
    return accepted


def run_traced(target: Target, data: bytes) -> None:
    """Check an input within the limit on memory, which takes several times as long.

    Raises:
        BaseException: the input is a finding.
    """
    tracemalloc.start()
    try:
        target.check(data)
        _, used = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed = MEMORY_FACTOR * len(data) + target.memory_bytes_max
    assert used <= allowed, f"{len(data)} bytes took {used} bytes of memory"


def refused(error: ThirteenError) -> bool:
    """Check the message of a refusal, which is one line; returns False, the outcome of the target."""
    message = str(error)
    assert message and len(message) <= MESSAGE_CHARACTERS_MAX, f"{len(message)} characters: {message[:200]}"
    assert not re.search(r"[\0-\x1f\x7f]", message), repr(message)
    return False


def accepts(reader: Callable[..., object], *arguments: object) -> bool:
    """Call a reader of input; returns whether it accepted it."""
    try:
        reader(*arguments)
    except ThirteenError as error:
        return refused(error)
    return True


@cache
def scratch_folder(name: str) -> Path:
    """A folder for the files of a target, which is removed at the end of the process."""
    folder = Path(_folder().name, name)
    folder.mkdir()
    return folder


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="thirteen-fuzz-")


def scratch_file(name: str, data: bytes) -> Path:
    """A file with these bytes, in place of the one before."""
    path = Path(_folder().name, name)
    path.write_bytes(data)
    return path
