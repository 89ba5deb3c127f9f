"""Temporary folders: those of killed processes go, those of running ones stay."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from thirteen.files.temporary_folder import temporary_folder

KILLED = """
import os, signal
from thirteen.files.temporary_folder import temporary_folder
with temporary_folder("work") as folder:
    (folder / "model.gguf").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    return tmp_path


def test_a_folder_is_removed_at_the_end(cache: Path) -> None:
    with temporary_folder("work") as folder:
        (folder / "a").write_bytes(b"1")
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(cache: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = cache.iterdir()
    assert done.returncode == -signal.SIGKILL and (left / "files" / "model.gguf").exists()
    with temporary_folder("other"):
        assert left.exists(), "another prefix, another task"
    with temporary_folder("work") as first, temporary_folder("work") as second:
        assert first.exists() and second.exists() and not left.exists()
    assert list(cache.iterdir()) == []


def test_folders_without_a_lock_stay(cache: Path) -> None:
    (cache / "work-mine").mkdir()
    with temporary_folder("work"):
        pass
    assert [path.name for path in cache.iterdir()] == ["work-mine"]


def test_another_parent_is_possible_and_the_folder_is_private(tmp_path: Path) -> None:
    with temporary_folder("work", tmp_path / "..") as folder:
        assert folder.parents[1].samefile(tmp_path.parent)
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_folders_of_others_stay(cache: Path) -> None:
    """In a folder that all can write to, a pipe instead of the lock would stop this process."""
    (cache / "work-theirs").mkdir()
    os.mkfifo(cache / "work-theirs" / "lock")
    (cache / "work-theirs").chmod(0o777)
    with temporary_folder("work"):
        pass
    assert [path.name for path in cache.iterdir()] == ["work-theirs"]
