"""Locks: what is created and locked is not what another process took for left over."""

import os
from pathlib import Path

import pytest
from thirteen.errors import OutputError
from thirteen.files.file_lock import create_locked


def test_what_another_process_removes_at_once_is_created_anew(tmp_path):
    created: list[Path] = []

    def create(path: Path) -> int:
        created.append(path)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        if len(created) < 4:
            path.unlink()
        if len(created) == 3:  # before it was open
            os.close(descriptor)
            raise FileNotFoundError
        return descriptor

    path, descriptor = create_locked(tmp_path.joinpath, create)
    os.close(descriptor)
    assert created.index(path) == 3 and path.exists()
    with pytest.raises(FileNotFoundError):
        create_locked(tmp_path.joinpath("none").joinpath, create)
    with pytest.raises(OutputError, match="remove such files at once"):
        create_locked(tmp_path.joinpath, lambda path: os.open(tmp_path, os.O_RDONLY))
