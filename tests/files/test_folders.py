"""Folders: the cache that only its owner can write to, and temporary ones."""

import os
import signal
import stat
import subprocess
import sys

import pytest
from thirteen.errors import OutputError
from thirteen.files.cache_folder import cache_dir, temporary_folder

KILLED = """
import os, signal
from thirteen.files.cache_folder import temporary_folder
with temporary_folder("work") as folder:
    (folder / "model.gguf").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("THIRTEEN_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_folder_that_all_can_write_to_is_refused(cache, mode):
    cache.chmod(mode)
    with pytest.raises(OutputError, match=f"not private: others can write to it .mode {mode & 0o1777:o}"):
        cache_dir()


def test_the_right_of_a_group_is_taken_away(cache):
    cache.chmod(0o775)
    assert cache_dir() == cache
    assert cache.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_a_folder_of_another_user_is_refused(cache):
    os.chown(cache, 4_321, -1)
    with pytest.raises(OutputError, match="belongs to user 4321"):
        cache_dir()


def test_what_a_killed_process_left_is_removed_later(cache):
    done = subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = cache.iterdir()
    names = {"work-mine", "work-0123456789abcdef.part"}
    for name in names:
        (cache / name).mkdir()
    with temporary_folder("work"):
        assert left.exists(), "it may be in use"
    os.utime(left, (0, 0))
    assert done.returncode == -signal.SIGKILL and (left / "model.gguf").exists()
    with temporary_folder("other"):
        assert left.exists(), "another prefix, another task"
    with temporary_folder("work") as first, temporary_folder("work") as second:
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        assert first.exists() and second.exists() and not left.exists()
    assert {path.name for path in cache.iterdir()} == names
