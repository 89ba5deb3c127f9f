"""The run-time LoRA of a search: its file goes when the search ends, whatever happens."""

import errno
from pathlib import Path

import numpy as np
import pytest
from thirteen.convert.adapter.basis import Basis, BasisOrigin, make_basis
from thirteen.convert.adapter.candidate_lora import CandidateLora
from thirteen.convert.source.checkpoint import Checkpoint, open_checkpoint
from thirteen.errors import OutputError

from ...runtime.conftest import write_gguf


@pytest.fixture
def model(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(write_gguf(tmp_path / "model.gguf", {}, {}))


@pytest.fixture
def basis(model: Checkpoint) -> Basis:
    return make_basis(model, BasisOrigin("tiny", model.sha256()))


def test_a_file_that_cannot_be_mapped_is_deleted_and_named(
    model: Checkpoint, basis: Basis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error named no file, and the file stayed."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", fail)
    path = tmp_path / "candidate.gguf"
    with pytest.raises(OutputError, match=f"{path}: cannot write: Cannot allocate memory"):
        CandidateLora(basis, model, path)
    assert not path.exists()


def test_a_file_that_cannot_be_deleted_does_not_end_the_run(
    model: Checkpoint, basis: Basis, tmp_path: Path
) -> None:
    """A search of hours failed in its last step, before it wrote its result."""
    path = tmp_path / "candidate.gguf"
    with CandidateLora(basis, model, path) as lora:
        lora.write(np.ones(basis.origin.numbers, np.float32))
        path.unlink()
        path.mkdir()
    assert path.is_dir()
