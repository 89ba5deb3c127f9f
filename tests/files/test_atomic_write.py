"""Atomic writes: what a reader finds under the target's name, whatever ends a writer."""

from pathlib import Path

import pytest
from thirteen.errors import OutputError
from thirteen.files import atomic_write as module
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
