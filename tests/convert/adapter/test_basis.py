"""A basis and thirteen numbers are an adapter: PEFT's own, on whatever machine it is put together."""

from dataclasses import replace

import numpy as np
import pytest
from peft import LoraConfig, PeftModel, TinyLoraConfig, get_peft_model
from thirteen.convert.adapter.adapter import load_adapter
from thirteen.convert.adapter.basis import BasisOrigin, make_basis, modules_of, read_basis, write_basis
from thirteen.convert.adapter.tinylora_folder import numbers_of, write_folder
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.errors import AdapterError

from ..peft_adapters import load, train
from .test_deterministic_svd import DECOMPOSERS, rows_of

NUMBERS = np.random.default_rng(3).normal(0, 0.3, 13).astype(np.float32)


def origin(base) -> BasisOrigin:
    return BasisOrigin("tiny", open_checkpoint(base).sha256())


@pytest.fixture(scope="module")
def basis(base):
    return make_basis(open_checkpoint(base("llama")), origin(base("llama")))


@pytest.mark.parametrize("decompose", DECOMPOSERS)
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_another_machines_linear_algebra_gives_the_same_adapter(base, kind, decompose):
    checkpoint, told = open_checkpoint(base(kind)), origin(base(kind))
    here = make_basis(checkpoint, told).deltas(NUMBERS)
    there = make_basis(checkpoint, told, decompose=rows_of(decompose, flip=-1)).deltas(NUMBERS)
    for module, delta in here.items():
        one, other = delta.b @ delta.a, there[module].b @ there[module].a
        assert np.abs(one - other).max() <= 2.0**-8 * np.abs(one).max(), module


def test_peft_applies_what_the_basis_says(base, basis, tmp_path):
    """Modules numbered or projections drawn otherwise would be another adapter."""
    write_folder(basis, NUMBERS, tmp_path / "made", "some/base")
    merged = PeftModel.from_pretrained(load(base("llama")), tmp_path / "made").merge_and_unload()
    plain, deltas = load(base("llama")).state_dict(), basis.deltas(NUMBERS)
    for module, delta in deltas.items():
        name = f"{module}.weight"
        moved = (merged.state_dict()[name] - plain[name]).numpy()
        assert np.allclose(moved, delta.b @ delta.a, atol=1e-5), module
    assert len(deltas) == 14


def test_the_projections_are_those_that_peft_draws(base, basis):
    model = get_peft_model(
        load(base("llama")),
        TinyLoraConfig(
            r=2,
            u=13,
            weight_tying=1.0,
            save_projection=True,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        ),
    )
    state = {name: tensor for name, tensor in model.state_dict().items() if "tinylora_P" in name}
    for module, of in basis.factors.items():
        drawn = next(tensor for name, tensor in state.items() if f".{module}." in name)
        assert np.allclose(of.p, drawn.numpy(), atol=1e-6), module


def test_the_folder_gives_the_numbers_back(basis, tmp_path):
    write_folder(basis, NUMBERS, tmp_path / "made", "some/base")
    assert numbers_of(tmp_path / "made", basis).tobytes() == NUMBERS.tobytes()
    loaded = load_adapter(tmp_path / "made")
    assert (loaded.kind, loaded.trained, loaded.rank) == ("tinylora", 13, 2)


def test_a_basis_is_what_was_written(basis, tmp_path):
    write_basis(basis, tmp_path / "basis.safetensors")
    read = read_basis(tmp_path / "basis.safetensors")
    assert read.origin == basis.origin and list(read.factors) == list(basis.factors)
    assert all(np.array_equal(read.factors[m].a, of.a) for m, of in basis.factors.items())
    before = (tmp_path / "basis.safetensors").read_bytes()
    write_basis(basis, tmp_path / "basis.safetensors")
    assert (tmp_path / "basis.safetensors").read_bytes() == before


def test_every_byte_of_a_basis_counts(basis, tmp_path):
    path = tmp_path / "basis.safetensors"
    write_basis(basis, path)
    whole = path.read_bytes()
    for place in (-1, -5_000, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(AdapterError, match="hash"):
            read_basis(path)


@pytest.mark.parametrize("change", [{"rank": 1}, {"numbers": 12}, {"seed": 1}, {"base_sha256": "0"}])
def test_whatever_changes_a_basis_changes_its_hash(basis, change):
    assert replace(basis.origin, **change).id != basis.id
    assert replace(basis.origin, name="other").id == basis.id


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"rank": 65}, {"numbers": True}, {"seed": -1}, {"base_sha256": None}]
)
def test_terms_that_no_basis_has_are_refused(basis, change):
    with pytest.raises(AdapterError, match="a basis"):
        replace(basis.origin, **change)


def test_numbers_over_other_factors_are_refused(base, basis, tmp_path):
    """PEFT's own decomposition has other signs: its numbers would mean something else here."""
    config = TinyLoraConfig(
        r=2,
        u=13,
        weight_tying=1.0,
        save_projection=True,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    folder = train(base("llama"), config, tmp_path / "own")
    with pytest.raises(AdapterError, match="not the basis' own"):
        numbers_of(folder, basis)


def test_an_adapter_of_another_kind_has_no_code(base, basis, tmp_path):
    folder = train(base("llama"), LoraConfig(r=2, target_modules=["q_proj"]), tmp_path / "lora")
    with pytest.raises(AdapterError, match="LORA with 0 vectors"):
        numbers_of(folder, basis)


def test_too_few_numbers_are_refused(basis, tmp_path):
    with pytest.raises(AdapterError, match="12 numbers for a basis of tiny that takes 13"):
        write_folder(basis, NUMBERS[:12], tmp_path / "made", "some/base")


def test_the_modules_are_in_the_order_of_transformers(base):
    named = [name for name, _ in load(base("llama")).named_modules()]
    modules = modules_of(open_checkpoint(base("llama")))
    assert modules == [name for name in named if name in set(modules)]
    assert len(modules) == 14
