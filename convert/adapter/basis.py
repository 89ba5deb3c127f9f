"""What a TinyLoRA's few numbers are multiplied with: frozen factors and projections, made from the base.

Whoever makes the basis of a base has the same one, so that a handful of numbers is all there is to pass on.
In PEFT's terms (see tinylora.py) these are `tinylora_A`, `tinylora_B` and `tinylora_P`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AdapterError
from ...files.progress import Progress, no_progress
from ...files.safetensors import Rows, SafetensorsFile, write_safetensors
from ..source.architecture import module_order
from ..source.checkpoint import Checkpoint
from .delta import Delta
from .deterministic_svd import Decompose, leading_factors
from .torch_random import torch_normal

TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
NAME_MAX = 20  # characters, so that a code of thirteen numbers has at most 80
_PARTS = ("tinylora_A", "tinylora_B", "tinylora_P")
_METADATA = "thirteen.basis"
_VERSION = 1  # of the way from weights to factors; another way is another basis
_RANK_MAX, _NUMBERS_MAX = 64, 4096


@dataclass(frozen=True)
class BasisOrigin:
    """All that a basis depends on.

    Attributes:
        name: the base's, as a code has it.
        base_sha256: of the weights, as `Checkpoint.sha256()`.
        rank: of the factors.
        numbers: how many a trained vector has.
        seed: of the projections; module number n draws its own from `seed` + n.
        version: of the algorithm.
    """

    name: str
    base_sha256: str
    rank: int = 2
    numbers: int = 13
    seed: int = 42
    version: int = _VERSION

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.base_sha256, str):
            raise AdapterError(
                f"a basis names its base and its hash, not {self.name!r} and {self.base_sha256!r}"
            )
        for name, least, most in (("rank", 1, _RANK_MAX), ("numbers", 1, _NUMBERS_MAX), ("seed", 0, 1 << 32)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise AdapterError(
                    f"a basis' {name} must be a whole number from {least} to {most}, not {value!r}"
                )

    @property
    def id(self) -> str:
        """The hash of all of it but the name, which people choose."""
        told = {key: value for key, value in asdict(self).items() if key != "name"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def origin_of(values: Mapping[str, Any]) -> BasisOrigin:
    """An origin by the names of its attributes, from a file.

    Raises:
        AdapterError: a value is not one that it can have.
    """
    return BasisOrigin(**values)


@dataclass(frozen=True)
class BasisFactors:
    """The frozen parts of one module."""

    a: Rows  # (r, in)
    b: Rows  # (out, r)
    p: Rows  # (numbers, r, r)

    def mixed(self, numbers: Rows) -> Rows:
        """The matrix between B and A that the numbers, (numbers,), make: (r, r)."""
        return np.asarray(np.einsum("i,ijk->jk", numbers, self.p), np.float32)


@dataclass(frozen=True)
class Basis:
    """The basis of one base, its modules in transformers' order."""

    origin: BasisOrigin
    factors: dict[str, BasisFactors]

    @cached_property
    def id(self) -> str:
        """The hash by which it is told from others."""
        return self.origin.id

    def deltas(self, numbers: Rows) -> dict[str, Delta]:
        """What `numbers`, (numbers,), add to each module."""
        return {module: Delta(of.b @ of.mixed(numbers), of.a) for module, of in self.factors.items()}

    def tensors(self) -> dict[str, Rows]:
        """The parts by the names that PEFT saves them under."""
        return {
            f"base_model.model.{module}.{part}": rows
            for module, of in self.factors.items()
            for part, rows in zip(_PARTS, (of.a, of.b, of.p), strict=True)
        }


def modules_of(base: Checkpoint) -> list[str]:
    """The modules that are adapted, in transformers' order, which numbers them."""
    names = (name.removesuffix(".weight") for name in base.specs)
    found = [name for name in names if name.rpartition(".")[2] in TARGETS]
    return sorted(found, key=lambda module: module_order(module) or (0, 0))


def make_basis(
    base: Checkpoint,
    origin: BasisOrigin,
    *,
    decompose: Decompose | None = None,
    progress: Progress = no_progress,
) -> Basis:
    """Decompose the base's matrices.

    Args:
        base: whose weights.
        origin: what is wanted, and which base it is.
        decompose: what decomposes a matrix, by default numpy; which one it is shows in the last bits only.
        progress: called with the modules done and in all.
    """
    modules = modules_of(base)
    factors = {}
    for index, module in enumerate(modules):
        name = f"{module}.weight"
        b, a = leading_factors(base.rows(name, 0, base.specs[name].shape[0]), origin.rank, decompose)
        shape = (origin.numbers, len(a), len(a))
        factors[module] = BasisFactors(a, b, torch_normal(origin.seed + index, 1.0 / np.sqrt(len(a)), shape))
        progress(index + 1, len(modules))
    return Basis(origin, factors)


def write_basis(basis: Basis, path: Path) -> None:
    """Write a basis as a safetensors file.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = basis.tensors()
    told = {**asdict(basis.origin), "id": basis.id, "content": _content(tensors)}
    write_safetensors(path, tensors, {_METADATA: json.dumps(told, sort_keys=True)})


def read_basis(path: Path) -> Basis:
    """Read what write_basis() wrote.

    Raises:
        AdapterError: it is not a basis, or damaged.
    """
    file = SafetensorsFile(path, AdapterError)
    told = _told(file)
    origin = origin_of({field.name: told.get(field.name) for field in fields(BasisOrigin)})
    tensors = {name: file.rows(name) for name in file.entries}
    if told.get("id") != origin.id or told.get("content") != _content(tensors):
        raise AdapterError(f"{path}: the basis' hash is not that of what is in it: it is damaged")
    modules = dict.fromkeys(name.removeprefix("base_model.model.").rpartition(".")[0] for name in tensors)
    ordered = sorted(modules, key=lambda module: module_order(module) or (0, 0))
    try:
        factors = {
            m: BasisFactors(*(tensors[f"base_model.model.{m}.{part}"] for part in _PARTS)) for m in ordered
        }
    except KeyError as missing:
        raise AdapterError(f"{path}: the basis lacks {missing}") from None
    return Basis(origin, factors)


def _told(file: SafetensorsFile) -> dict[str, Any]:
    try:
        told = json.loads(file.metadata[_METADATA])
    except (KeyError, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise AdapterError(
            f"{file.path}: not a basis of version {_VERSION}, as thirteen adapter basis writes them"
        )
    return told


def _content(tensors: Mapping[str, Rows]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return digest.hexdigest()
