"""The basis of a base, computed once and cached, and the adapter that a short code makes of it."""

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..convert.adapter.adapter import WEIGHTS_FILE
from ..convert.adapter.basis import (
    NAME_MAX,
    Basis,
    BasisOrigin,
    grouped_origins,
    make_basis,
    read_basis,
    write_basis,
    write_tinylora_folder,
)
from ..convert.adapter.short_code import ShortCode, basis_fingerprint
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import FileError
from ..files.cache_folder import cache_dir, cache_key, cached
from ..files.progress import QUIET, Run
from .base import Base, catalogue_weights
from .catalogue import catalogue


def find_basis(base: Base, run: Run = QUIET, **settings: Any) -> Basis:
    """Find the basis of a base in the cache, or compute it."""
    checkpoint = open_checkpoint(base.path)
    return cached_basis(BasisOrigin(code_name(base), checkpoint.sha256(), **settings), checkpoint, run)


def cached_basis(origin: BasisOrigin, base: Checkpoint, run: Run = QUIET) -> Basis:
    """Read a basis from the cache, or compute it of its base."""

    def make(path: Path) -> None:
        write_basis(make_basis(base, origin, progress=run.when_needed("basis")), path)

    return _read(cached(_file(basis_fingerprint(origin.id)), make), origin.name)


def basis_of_code(code: ShortCode, base: Base | None = None, run: Run = QUIET) -> Basis:
    """Find the basis of a code's numbers in the cache, or compute it."""
    if base is None and (known := cache_dir() / _file(code.fingerprint)).exists():
        return _read(known, code.name)
    checkpoint = open_checkpoint(base.path if base else catalogue_weights(code.name))
    origins = list(grouped_origins(BasisOrigin(code.name, checkpoint.sha256(), numbers=len(code.numbers))))
    origin = next((one for one in origins if basis_fingerprint(one.id) == code.fingerprint), None)
    if origin is None:
        made_for = (one for one in catalogue().adapters.values() if one.code and one.base == code.name)
        files = "".join(f": {one.base_file}, SHA-256 {one.base_sha256}" for one in made_for)
        raise FileError(
            f"the code was made with the basis {code.fingerprint} of {code.name}, but that of {code.name} "
            f"({checkpoint.path.name}) is {basis_fingerprint(origins[0].id)}: give the very base that it was "
            f"made for{files}"
        )
    return cached_basis(origin, checkpoint, run)


def expand_code(text: str, code: ShortCode, base: Base | None, run: Run = QUIET) -> Path:
    """Write the adapter of a code as a PEFT folder in the cache, unless it is there; returns the folder."""
    own = None if code.name in catalogue().bases else base

    def make(weights: Path) -> None:
        basis = basis_of_code(code, own, run)
        write_tinylora_folder(basis, code.numbers, weights.parent, catalogue().hub_id(code.name))

    key = cache_key(version("thirteen"), text.strip().lower(), own and open_checkpoint(own.path).sha256())
    return cached(f"code-{key}/{WEIGHTS_FILE}", make).parent


def code_name(base: Base) -> str:
    """The name of a base in codes."""
    stem = re.sub("[^a-z0-9.-]", "-", base.path.name.lower().removesuffix(".gguf")).lstrip(".-")
    return base.name or stem[:NAME_MAX] or "base"


def _file(fingerprint: str) -> str:
    return f"basis-{fingerprint}.safetensors"


def _read(file: Path, name: str) -> Basis:
    """Read a basis by the name that its base has here; the file may have another one."""
    basis = read_basis(file)
    return replace(basis, origin=replace(basis.origin, name=name))
