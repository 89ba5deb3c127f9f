"""A copy of an adapter that fails, and its folder."""

import errno
import json
import os

import numpy as np
import pytest
from thirteen.convert.adapter.export import copy_adapter
from thirteen.errors import OutputError
from thirteen.files.safetensors import write_safetensors


def test_a_full_disk_leaves_no_config_without_its_weights(tmp_path, monkeypatch):
    """The folder was then not empty, and the next export into it was refused."""
    folder, out, sync = tmp_path / "lora", tmp_path / "out", os.fsync
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    (folder / "prompt.json").write_text("{}")
    write_safetensors(folder / "adapter_model.safetensors", {"a": np.ones((2, 3), np.float32)}, {})

    def fail(descriptor):
        parts = [path.stat().st_ino for path in out.glob(".adapter_model.safetensors.*.part")]
        if os.fstat(descriptor).st_ino in parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="No space left"):
            copy_adapter(folder, out)
    assert not out.exists()
    copy_adapter(folder, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
