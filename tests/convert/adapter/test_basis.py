"""A basis and thirteen numbers make the adapter that PEFT makes, on every machine."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel, TinyLoraConfig
from safetensors.numpy import load_file, save_file
from thirteen.convert.adapter.adapter import load_adapter
from thirteen.convert.adapter.basis import (
    BasisOrigin,
    make_basis,
    read_basis,
    read_tinylora_numbers,
    with_saved_groups,
    write_basis,
    write_tinylora_folder,
)
from thirteen.convert.adapter.deterministic import svd_factors, torch_normal
from thirteen.convert.adapter.export import copy_adapter
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import FileError, OutputError

from ..peft_adapters import load, save_random_adapter

NUMBERS = np.random.default_rng(3).normal(0, 0.3, 13).astype(np.float32)


def origin(base) -> BasisOrigin:
    return BasisOrigin("tiny", open_checkpoint(base).sha256())


@pytest.fixture(scope="module")
def basis(base):
    return make_basis(open_checkpoint(base("llama")), origin(base("llama")))


@pytest.mark.parametrize("groups", [1, 2])
def test_peft_applies_the_deltas_of_the_basis_and_the_numbers_are_read_back(base, tmp_path, groups):
    """Another numbering of modules or drawing of projections would make another adapter."""
    numbers = np.random.default_rng(3).normal(0, 0.3, 13 * groups).astype(np.float32)
    grouped = replace(origin(base("llama")), numbers=len(numbers), groups=groups)
    write_basis(make_basis(open_checkpoint(base("llama")), grouped), tmp_path / "basis.safetensors")
    basis = read_basis(tmp_path / "basis.safetensors")
    write_tinylora_folder(basis, numbers, tmp_path / "made", "some/base")
    assert read_tinylora_numbers(tmp_path / "made", basis).tobytes() == numbers.tobytes()
    loaded = load_adapter(tmp_path / "made")
    assert (loaded.kind, loaded.trained_parameters, loaded.rank) == ("tinylora", len(numbers), 2)
    # Without the groups that the projections show, the numbers could not be encoded.
    assert with_saved_groups(replace(grouped, groups=1), tmp_path / "made") == grouped
    merged = PeftModel.from_pretrained(load(base("llama")), tmp_path / "made").merge_and_unload()
    plain, deltas = load(base("llama")).state_dict(), basis.deltas(numbers)
    for module, delta in deltas.items():
        name = f"{module}.weight"
        change = (merged.state_dict()[name] - plain[name]).numpy()
        assert np.allclose(change, delta.b @ delta.a, atol=1e-5), module
    assert len(deltas) == 14


def test_the_hash_depends_on_everything_but_the_name(basis):
    for change in ({"rank": 1}, {"numbers": 12}, {"seed": 1}, {"base_sha256": "0"}, {"groups": 13}):
        assert replace(basis.origin, **change).id != basis.origin.id
    assert replace(basis.origin, name="other").id == basis.origin.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "basis: rank must be an integer from 1 to 64, not 0"),
        ({"numbers": True}, "basis: numbers must be an integer from 1 to 4096, not True"),
        ({"groups": 2}, "13 numbers do not divide into 2 groups"),
        ({"groups": 13}, "basis: 13 groups of 2 layers"),
    ],
)
def test_invalid_parameters_of_a_basis_are_refused(base, basis, change, message):
    with pytest.raises(FileError, match=message):
        make_basis(open_checkpoint(base("llama")), replace(basis.origin, **change))


def test_an_adapter_with_other_factors_is_refused(base, basis, tmp_path):
    """PEFT's SVD has other signs, so the same numbers would make another adapter."""
    config = TinyLoraConfig(r=2, u=13, weight_tying=1.0, target_modules="all-linear")
    folder = save_random_adapter(base("llama"), config, tmp_path / "own")
    with pytest.raises(FileError, match="not those of the basis"):
        read_tinylora_numbers(folder, basis)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize(
    ("failing", "old"), [("adapter_model.safetensors", True), ("adapter_config.json", False)]
)
def test_a_failure_leaves_the_folder_as_it_was(basis, tmp_path, monkeypatch, failing, old, copies):
    """A full disk left a new config beside old weights, or a config alone."""
    source, folder, sync = tmp_path / "source", tmp_path / "made", os.fsync
    write_tinylora_folder(basis, -NUMBERS, source, "another/base")
    if old:
        write_tinylora_folder(basis, NUMBERS, folder, "some/base")
    before = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def fail(descriptor):
        parts = [path.stat().st_ino for path in folder.glob(f".{failing}.*.part")]
        if os.fstat(descriptor).st_ino in parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        if copies:
            copy_adapter(source, folder)
        else:
            write_tinylora_folder(basis, -NUMBERS, folder, "another/base")
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_base_that_is_not_finite_is_named(base, basis, tmp_path):
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][3, 5] = np.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(FileError, match=r"base: tensor 'model\..*q_proj\.weight' holds a value that is"):
        make_basis(open_checkpoint(folder), basis.origin)


# PyTorch draws fewer than 16 numbers one by one, and more in blocks of 16, the last of which may overlap.
@pytest.mark.parametrize(
    "shape", [(1,), (3, 1, 1), (15,), (16,), (17,), (31,), (33,), (13, 2, 2), (64, 2, 2), (10007,)]
)
@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1, 2**32 + 7, 2**63 - 1])
def test_the_numbers_match_pytorch(seed, shape):
    drawn = torch_normal(seed, 0.5**0.5, shape)
    expected = torch.normal(0.0, 0.5**0.5, shape, generator=torch.Generator().manual_seed(seed)).numpy()
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=5e-7)
    assert np.linalg.norm(drawn - expected) < 1e-7 * np.linalg.norm(expected)


def with_values(shape: tuple[int, int], values: list[float]) -> np.ndarray:
    """A random matrix with these singular values."""
    random = np.random.default_rng(7)
    left, right = (np.linalg.qr(random.normal(size=(n, len(values))))[0] for n in shape)
    return (left * values @ right.T).astype(np.float64)


MATRICES = {
    "tall": np.random.default_rng(1).normal(size=(96, 40)),
    "wide": np.random.default_rng(2).normal(size=(40, 96)),
    "nearly equal values": with_values((30, 20), [2.0, 1.0, 1.0 - 1e-5, 0.5]),
    "equal values at the cut": with_values((30, 20), [2.0, 1.0, 1.0, 1.0, 0.5]),
    "rank 1": with_values((30, 20), [2.0]),
    "zero": np.zeros((8, 5)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_factors_do_not_depend_on_the_rounding_of_a_library(name):
    """Another sign or rotation of the singular vectors would change what the trained numbers mean."""
    weight, mixed = MATRICES[name], np.array([[0.3, -1.2], [0.7, 0.1]])
    b, a = svd_factors(weight, 2)
    delta = b @ mixed @ a
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=weight.shape)
        b, a = svd_factors(weight + 1e-13 * noise * np.linalg.norm(weight), 2)
        assert np.abs(delta - b @ mixed @ a).max() <= 2.0**-9 * np.abs(delta).max()


@pytest.mark.parametrize("name", ["tall", "wide", "nearly equal values"])
def test_the_product_of_the_factors_is_the_truncated_matrix(name):
    weight = MATRICES[name]
    b, a = svd_factors(weight, 2)
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    assert np.allclose(b @ a, left[:, :2] * values[:2] @ right[:2], atol=1e-6)
    assert np.allclose(np.linalg.norm(a, axis=1), np.sqrt(values[:2]), rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(64, 576), (576, 64)])
@pytest.mark.parametrize("rank", [0, 1, 40])
def test_factors_beyond_the_rank_of_the_matrix_are_zero(shape, rank):
    """They were infinite for a wide matrix, and noise for a tall one."""
    weight = with_values(shape, [1 / (1 + n) for n in range(rank)]) if rank else np.zeros(shape)
    b, a = svd_factors(weight, 64)
    assert not a[rank:].any() and not b[:, rank:].any()
    assert np.allclose(b @ a, weight, atol=1e-6)
