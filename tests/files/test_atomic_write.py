"""Atomic writes: what a reader finds under the target's name, whatever ends a writer."""

import errno
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from thirteen.errors import OutputError
from thirteen.files import atomic_write as module
from thirteen.files.atomic_write import atomic_write

from ..repeats import REPEATS


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, exclusive: bool) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(target, exclusive=exclusive) as file:
            file.write(b"new")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    with atomic_write(target, exclusive=exclusive) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_the_mode_is_that_asked_for(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "private", mode=0o600, sync=False) as file:
        file.write(b"x")
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("third", [False, True])
def test_a_part_file_that_became_the_target_meanwhile_is_let_be(third: bool, tmp_path: Path) -> None:
    """The lock outlives a rename: the second run would hold, and cut, the first one's finished file."""
    part, target = tmp_path / ".a.gguf.part", tmp_path / "a.gguf"
    part.write_bytes(b"whole")
    with part.open("ab+") as file:
        part.rename(target)
        if third:  # a third run has begun by now
            part.write_bytes(b"begun")
        with pytest.raises(OutputError, match="has just written it"):
            module._lock(file, part, target)
    assert target.read_bytes() == b"whole"


WRITER = """
import os, sys, time
from pathlib import Path
from thirteen.files import atomic_write as module
os.getpid = lambda: 1  # as in two containers that share a cache
with module.atomic_write(Path(sys.argv[1]), sync=False) as file:
    for _ in range(20):
        file.write(sys.argv[2].encode() * 1000)
        file.flush()
        time.sleep(0.001)
"""


def test_two_writers_with_one_process_id_mix_no_bytes(tmp_path: Path) -> None:
    """The part's name held the process id alone: containers that share a cache wrote one part."""
    target = tmp_path / "a"
    for _ in range(REPEATS):
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, target, letter]) for letter in "xy"]
        assert [writer.wait() for writer in writers] == [0, 0]
        assert target.read_bytes() in (b"x" * 20_000, b"y" * 20_000)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_planted_link_is_never_written_through(link: Callable[..., None], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    link(victim, folder / ".a.part")
    with suppress(OutputError), atomic_write(folder / "a", exclusive=True) as file:
        file.write(b"new")
    assert victim.read_bytes() == b"precious"


def test_what_a_killed_writer_left_is_removed_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    dead = tmp_path / ".other.0123456789abcdef.part"
    dead.write_bytes(b"half")
    others = [tmp_path / name for name in (".a.part", "b.part", ".config.part", "data.0123456789abcdef.part")]
    for other in others:
        other.write_bytes(b"not ours")
    with atomic_write(tmp_path / "one") as running:
        assert not dead.exists()
        with atomic_write(tmp_path / "two") as file:
            file.write(b"2")
        assert Path(running.name).exists()
        running.write(b"1")
    assert (tmp_path / "one").read_bytes() == b"1"
    assert all(other.exists() for other in others)


def test_an_exclusive_part_that_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".a.part"
    left.write_bytes(b"half of it")
    left.chmod(0o666)
    with atomic_write(tmp_path / "a", exclusive=True, mode=0o600) as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_a_second_exclusive_writer_is_refused(tmp_path: Path) -> None:
    with (
        atomic_write(tmp_path / "a", exclusive=True) as file,
        pytest.raises(OutputError, match="another process is writing it"),
        atomic_write(tmp_path / "a", exclusive=True),
    ):
        file.write(b"never reached")


@pytest.mark.skipif(os.name != "posix", reason="Windows cannot remove an open file")
@pytest.mark.parametrize("fails", [False, True])
def test_without_locks_the_first_of_two_exclusive_writers_publishes_and_removes_nothing(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renamed the unfinished part of the second one to the target."""
    monkeypatch.setattr(module, "lock_file", lambda file, **options: True)  # as on some network file systems
    target = tmp_path / "a"
    first = atomic_write(target, exclusive=True)
    first.__enter__().write(b"first")
    with atomic_write(target, exclusive=True) as second:
        second.write(b"sec")
        second.flush()
        if fails:
            assert not first.__exit__(ValueError, ValueError(), None)
        else:
            with pytest.raises(OutputError, match="another process is writing it"):
                first.__exit__(None, None, None)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {".a.part": b"sec"}
        second.write(b"ond")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"second"}


def test_a_folder_that_cannot_reach_the_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk was ignored, and `batch` then deleted the only durable copy of its answers."""
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"), atomic_write(tmp_path / "a") as file:
        file.write(b"1")


# These write into folders that are temporary, or renamed as a whole.
_INTO_PART_FOLDERS = {
    "convert/merge.py",
    "convert/vocabulary/checkpoint_files.py",
    "learn/job.py",
}


def test_no_module_writes_a_file_that_could_be_half_written() -> None:
    """Reports, cards and saved measurements were written in place."""
    root = Path(module.__file__).parents[1]
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [root.joinpath(*name.split(".")[1:]) for name in packages]
    in_place = re.compile(r"\.write_(text|bytes)\(|open\([^)]*[\"'][wx]b?\+?[\"']")
    found = {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in folder.glob("*.py")
        if in_place.search(path.read_text("utf-8"))
    }
    assert found - {"files/atomic_write.py"} == _INTO_PART_FOLDERS
