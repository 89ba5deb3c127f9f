"""The cache folder: where it is, and that only its owner can write to it."""

import os

import pytest
from thirteen.errors import OutputError
from thirteen.files.cache_folder import cache_dir


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("THIRTEEN_CACHE", str(folder))
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_folder_that_all_can_write_to_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(OutputError, match=f"not private: others can write to it .mode {mode & 0o1777:o}"):
        cache_dir()


def test_the_right_of_a_group_is_taken_away(folder):
    folder.chmod(0o775)
    assert cache_dir() == folder
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("given", [".", "model.gguf"])
def test_files_of_other_users_are_refused(folder, given):
    (folder / "model.gguf").touch()
    os.chown(folder / given, 4_321, -1)
    with pytest.raises(OutputError, match="belongs to user 4321"):
        cache_dir()
