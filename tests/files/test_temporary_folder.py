"""Temporary folders: those of killed processes go, those of running ones stay."""

import signal
import stat
import subprocess
import sys

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
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    return tmp_path


def test_what_a_killed_process_left_is_removed_by_the_next(cache):
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = cache.iterdir()
    assert done.returncode == -signal.SIGKILL and (left / "model.gguf").exists()
    with temporary_folder("other"):
        assert left.exists(), "another prefix, another task"
    with temporary_folder("work") as first, temporary_folder("work") as second:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert first.exists() and second.exists() and not left.exists()
    assert list(cache.iterdir()) == []


def test_other_files_and_folders_stay(cache):
    names = {"work-mine", "work-0123456789abcdef.part", "other-0123456789abcdef"}
    for name in names:
        (cache / name).mkdir()
    (cache / "work-fedcba9876543210").symlink_to(cache / "work-mine")
    with temporary_folder("work"):
        pass
    assert {path.name for path in cache.iterdir()} == names | {"work-fedcba9876543210"}
