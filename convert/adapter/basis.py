"""The frozen part of a TinyLoRA, computed from the base: truncated SVD factors and random projections.

Everyone who computes the basis of a base gets the same one, so an adapter is passed on as its trained vector
alone. A PEFT folder, as training would save it, has the vector and its basis.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from ...errors import FileError
from ...files.json_file import layout_errors
from ...files.progress import Progress, no_progress
from ...files.safetensors import SafetensorsFile, write_safetensors, write_tensors
from ...stats import Floats
from ..source.checkpoint import Checkpoint
from ..source.families import module_order
from .adapter import WEIGHTS_FILE, adapter_folder, load_adapter
from .delta import CONFIG_FILE, Delta
from .deterministic import svd_factors, torch_normal

NAME_MAX = 20  # characters, so that a code of thirteen numbers has at most 80
_PARTS = ("tinylora_A", "tinylora_B", "tinylora_P")
_VECTOR = "base_model.tinylora_v.0"
_TOLERANCE = 2.0**-8  # bfloat16's precision
_METADATA_KEY = "thirteen.basis"
NUMBERS_MAX = 4096  # of a trained vector
_RANK_MAX = 64


@dataclass(frozen=True)
class BasisOrigin:
    """Everything that determines a basis."""

    name: str  # of the base, as in codes
    base_sha256: str  # see Checkpoint.sha256()
    rank: int = 2  # of the factors
    numbers: int = 13  # length of the trained vector
    seed: int = 42  # of the projections; module number n uses `seed` + n
    version: int = 1  # of the algorithm; a change makes another basis
    # Groups of neighbouring layers. Each has its own part of the vector, numbers/groups long: the projections
    # of its modules are zero in all other parts.
    groups: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (("rank", 1, _RANK_MAX), ("numbers", 1, NUMBERS_MAX), ("seed", 0, 1 << 32)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise FileError(f"basis: {name} must be an integer from {low} to {high}, not {value!r}")
        if self.groups not in range(1, self.numbers + 1) or self.numbers % self.groups:
            raise FileError(f"basis: {self.numbers} numbers do not divide into {self.groups!r} groups")

    @property
    def id(self) -> str:
        """Hash of all attributes except the name, which users choose."""
        hashed = asdict(self) | {"group_by": "depth"}
        # Earlier files know no groups.
        unhashed = ("name", "groups", "group_by") if self.groups == 1 else ("name",)
        hashed = {key: value for key, value in hashed.items() if key not in unhashed}
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def grouped_origins(origin: BasisOrigin) -> Iterator[BasisOrigin]:
    """All origins that differ in their groups only, beginning with one group."""
    for groups in range(1, origin.numbers + 1):
        if not origin.numbers % groups:
            yield replace(origin, groups=groups)


@dataclass(frozen=True)
class BasisFactors:
    """The frozen parts of one module."""

    a: Floats  # (r, in)
    b: Floats  # (out, r)
    p: Floats  # (u, r, r)

    def inner_matrix(self, numbers: Floats) -> Floats:
        """The matrix between B and A for the trained vector `numbers`, sum_i v_i P_i: (r, r)."""
        return np.asarray(np.einsum("i,ijk->jk", numbers, self.p), np.float32)


@dataclass(frozen=True)
class Basis:
    """The basis of one base; modules are in transformers' order."""

    origin: BasisOrigin
    factors: dict[str, BasisFactors]

    def deltas(self, numbers: Floats) -> dict[str, Delta]:
        """The change of each module for the trained vector `numbers`, (u,)."""
        return {
            module: Delta(factors.b @ factors.inner_matrix(numbers), factors.a)
            for module, factors in self.factors.items()
        }

    def tensors(self) -> dict[str, Floats]:
        """The factors under PEFT's names."""
        return {
            f"base_model.model.{module}.{part}": rows
            for module, factors in self.factors.items()
            for part, rows in zip(_PARTS, (factors.a, factors.b, factors.p), strict=True)
        }


def target_modules(base: Checkpoint) -> list[str]:
    """The adapted modules in transformers' order, which numbers them."""
    kinds = base.architecture.family.targets
    names = (name.removesuffix(".weight") for name in base.specs)
    return _in_order(name for name in names if name.rpartition(".")[2] in kinds)


def make_basis(base: Checkpoint, origin: BasisOrigin, *, progress: Progress = no_progress) -> Basis:
    """Compute a basis; `progress` gets the number of modules done and of all modules.

    Raises:
        FileError: the base has fewer layers than there are groups; a weight of the base is not finite.
    """
    modules = target_modules(base)
    groups = _groups(modules, origin)
    factors = {}
    for index, module in enumerate(modules):
        name = f"{module}.weight"
        weight = base.rows(name, 0, base.specs[name].shape[0])
        if not np.isfinite(weight).all():
            raise FileError(f"{base.path}: tensor {name!r} holds a value that is not finite")
        b, a = svd_factors(weight, origin.rank)
        part = origin.numbers // origin.groups
        projections = np.zeros((origin.numbers, len(a), len(a)), np.float32)  # (u, r, r)
        start = part * groups[module]
        drawn = torch_normal(origin.seed + index, 1.0 / np.sqrt(len(a)), (part, len(a), len(a)))
        projections[start : start + part] = drawn
        factors[module] = BasisFactors(a, b, projections)
        progress(index + 1, len(modules))
    return Basis(origin, factors)


def _groups(modules: Sequence[str], origin: BasisOrigin) -> dict[str, int]:
    """The group of each module: equal shares of the layers in their order."""
    layers = {module: (module_order(module) or (0, 0))[0] for module in modules}
    order = {layer: place for place, layer in enumerate(sorted(set(layers.values())))}
    if len(order) < origin.groups:
        raise FileError(f"basis: {origin.groups} groups of {len(order)} layers")
    return {module: order[layer] * origin.groups // len(order) for module, layer in layers.items()}


def write_basis(basis: Basis, path: Path) -> None:
    """Write a basis as a safetensors file."""
    metadata = {_METADATA_KEY: json.dumps(asdict(basis.origin), sort_keys=True)}
    write_safetensors(path, basis.tensors(), metadata)


def read_basis(path: Path) -> Basis:
    """Read a file of write_basis(); FileError if it is another."""
    file = SafetensorsFile(path)
    tensors = {name: file.rows(name) for name in file.entries}
    with layout_errors(path):
        metadata = json.loads(file.metadata[_METADATA_KEY])
        # Files of earlier versions have more entries.
        origin = BasisOrigin(**{one.name: metadata[one.name] for one in fields(BasisOrigin)})
        modules = {name.removeprefix("base_model.model.").rpartition(".")[0] for name in tensors}
        factors = {
            module: BasisFactors(*(tensors[f"base_model.model.{module}.{part}"] for part in _PARTS))
            for module in _in_order(modules)
        }
    return Basis(origin, factors)


def _in_order(modules: Iterable[str]) -> list[str]:
    return sorted(modules, key=lambda module: module_order(module) or (0, 0))


def write_tinylora_folder(basis: Basis, numbers: Floats, folder: Path, base_id: str) -> None:
    """Write the adapter of a trained vector, (u,), as a PEFT folder, whose config names the base."""
    origin = basis.origin
    assert len(numbers) == origin.numbers
    config = {
        "base_model_name_or_path": base_id,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "peft_type": "TINYLORA",
        "projection_seed": origin.seed,
        "r": origin.rank,
        "save_projection": True,
        "target_modules": sorted({module.rpartition(".")[2] for module in basis.factors}),
        "task_type": "CAUSAL_LM",
        "tinylora_dropout": 0.0,
        "u": origin.numbers,
        "weight_tying": 1.0,
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    with adapter_folder(folder, {CONFIG_FILE: text.encode()}) as weights:
        write_tensors(weights, {**basis.tensors(), _VECTOR: numbers}, {"format": "pt"})


def read_tinylora_numbers(folder: Path, basis: Basis) -> Floats:
    """The trained vector of an adapter, (u,); FileError if it is not over this basis."""
    adapter, file = load_adapter(folder), SafetensorsFile(folder / WEIGHTS_FILE)
    if adapter.kind != "tinylora" or adapter.trained_parameters != basis.origin.numbers:
        raise FileError(
            f"{folder}: is {adapter.kind} with {adapter.trained_parameters} numbers, not a TinyLoRA with the "
            f"{basis.origin.numbers} of the basis of {basis.origin.name}"
        )
    numbers = file.rows(_VECTOR)
    expected = {f"{module}.weight": delta for module, delta in basis.deltas(numbers).items()}
    same = adapter.deltas.keys() == expected.keys()
    if not same or not all(_is_same(adapter.deltas[name], delta) for name, delta in expected.items()):
        raise FileError(
            f"{folder}: its factors are not those of the basis of {basis.origin.name}, so its numbers have "
            "another meaning"
        )
    return numbers


def with_saved_groups(origin: BasisOrigin, folder: Path) -> BasisOrigin:
    """The origin with as many groups as the projections of an adapter show: they are zero outside."""
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    parts = (
        np.count_nonzero(file.rows(name).any((1, 2)))
        for name, entry in file.entries.items()
        if name.endswith(_PARTS[2]) and len(entry.shape) == 3
    )
    part = int(max(parts, default=0))
    return replace(origin, groups=1 if not part or origin.numbers % part else origin.numbers // part)


def _is_same(saved: Delta, expected: Delta) -> bool:
    if saved.shape != expected.shape:
        return False
    difference = Delta(np.hstack([saved.b, -expected.b]), np.vstack([saved.a, expected.a])).norm
    return difference <= _TOLERANCE * expected.norm
