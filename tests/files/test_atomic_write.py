"""Atomic writes: what a reader finds under the target's name, whatever ends a writer."""

from pathlib import Path

import pytest
from thirteen.errors import OutputError
from thirteen.files.atomic_write import atomic_write


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


def test_a_part_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"half of it")
    with atomic_write(tmp_path / "a", exclusive=True) as file:
        file.write(b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"new"}


def test_a_link_under_the_name_of_the_part_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    (tmp_path / ".a.part").symlink_to(other)
    with pytest.raises(OutputError, match=r"a: cannot write: "), atomic_write(tmp_path / "a", exclusive=True):
        pass
    assert other.read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.part", "other"]
