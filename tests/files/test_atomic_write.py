"""Atomic writes: what a reader finds under the target's name, whatever ends a writer."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from thirteen.files import output as module
from thirteen.files.output import atomic_write, write_file


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, failure):
    target = tmp_path / "a"
    target.write_bytes(b"old")

    with pytest.raises(failure), atomic_write(target) as file:
        file.write(b"new")
        raise failure
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
    with atomic_write(target) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_a_link_stays_one(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/a")
    for content in (b"old", b"new"):
        write_file(tmp_path / "link", content)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder/a").read_bytes() == b"new"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_two_writers_of_one_target_mix_no_bytes(tmp_path):
    """The part's name held the process id alone: containers that share a cache wrote one part."""
    with atomic_write(tmp_path / "a", mode=0o600) as one:
        with atomic_write(tmp_path / "a") as two:
            one.write(b"x")
            two.write(b"yyy")
        assert (tmp_path / "a").read_bytes() == b"yyy"
    assert (tmp_path / "a").read_bytes() == b"x" and (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_writer_left_is_removed_later_and_what_a_running_one_writes_stays(tmp_path):
    dead = tmp_path / ".other.0123456789abcdef.part"
    dead.write_bytes(b"half")
    others = [tmp_path / name for name in (".a.part", "b.part", ".config.part", "data.0123456789abcdef.part")]
    for other in others:
        other.write_bytes(b"not ours")
    for path in (dead, *others):
        os.utime(path, (0, 0))
    with atomic_write(tmp_path / "one") as running:
        assert not dead.exists()
        with atomic_write(tmp_path / "two") as file:
            file.write(b"2")
        assert Path(running.name).exists()
        running.write(b"1")
    assert (tmp_path / "one").read_bytes() == b"1"
    assert all(other.exists() for other in others)


def test_no_module_writes_a_file_that_could_be_half_written():
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
    assert not found - {"files/output.py"}
