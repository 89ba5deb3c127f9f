"""What a training run writes, and when it deletes what it could be resumed from. No model is loaded."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from thirteen.convert.adapter.basis import Basis, BasisOrigin
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import OutputError, ThirteenError
from thirteen.learn.job import TrainCheckpoint, TrainingJob, TrainState
from thirteen.learn.recipe import RECIPES

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@contextmanager
def file_limit(nbytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FakeAdapter:
    """Saves files as PEFT does."""

    def __init__(self, weights: bytes) -> None:
        self.peft_config = {"default": SimpleNamespace()}
        self.weights = weights

    def save_pretrained(self, folder: Path, **_: object) -> None:
        (folder / CONFIG).write_text(json.dumps({"target_modules": ["b", "a"]}))
        (folder / WEIGHTS).write_bytes(self.weights)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(tmp_path / "base", tmp_path, RECIPES["lora"])


def test_an_adapter_is_saved_as_a_whole_or_not_at_all(job: TrainingJob, tmp_path: Path) -> None:
    """Half of the weights stood under their name."""
    job.save(FakeAdapter(b"old"))
    with pytest.raises(OutputError, match="File too large"), file_limit(100):
        job.save(FakeAdapter(bytes(101)))
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, WEIGHTS}
    assert (tmp_path / WEIGHTS).read_bytes() == b"old"
    job.save(FakeAdapter(b"new"))
    assert (tmp_path / WEIGHTS).read_bytes() == b"new"
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == ["a", "b"]


def test_a_saved_adapter_is_on_disk(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint was deleted before its replacement was on disk."""
    synced, sync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.add(os.fstat(file).st_ino), sync(file)))
    job.save(FakeAdapter(b"new"))
    assert {path.stat().st_ino for path in (tmp_path, tmp_path / CONFIG, tmp_path / WEIGHTS)} <= synced


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    import torch

    path = tmp_path / "checkpoint"
    TrainCheckpoint(path, "one").save(TrainState(3, [0.5], [], [torch.zeros(2, 3)], {}))
    found = TrainCheckpoint(path, "one").load()
    assert found and found.step == 3 and found.trained[0].shape == (2, 3)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ThirteenError, match="damaged" if content is not None else "another base"):
        TrainCheckpoint(path, "other").load()


def test_a_run_with_another_basis_or_precision_is_another_run(job: TrainingJob) -> None:
    """The state over a basis of the same shape was taken for that of this run."""
    origin = BasisOrigin("tiny", "0", numbers=8, groups=2)
    origins = (origin, replace(origin, groups=4), replace(origin, base_sha256="1"))
    runs = [job, replace(job, recipe=replace(job.recipe, bf16=True))]
    runs += [replace(job, basis=Basis(one, {})) for one in origins]
    assert len({run.run_id() for run in runs}) == 5


def test_the_hash_of_a_sharded_base_is_that_of_its_checkpoint(
    job: TrainingJob, base: Callable[[str], Path]
) -> None:
    """It was another one, of the same files."""
    folder = base("llama bf16 in shards")
    assert replace(job, base=folder).base_sha256 == open_checkpoint(folder).sha256()
