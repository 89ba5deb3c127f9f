"""The basis of a base, computed once and cached, and the adapter that a short code makes of it."""

import re
from contextlib import suppress
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
)
from ..convert.adapter.short_code import ShortCode, basis_fingerprint
from ..convert.adapter.tinylora_folder import write_tinylora_folder
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import FileError
from ..files.cache_folder import cache_dir, cache_key
from ..files.progress import QUIET, Run
from .base import Base, catalogue_weights
from .catalogue import catalogue


def find_basis(base: Base, run: Run = QUIET, **settings: Any) -> Basis:
    """Find the basis of a base in the cache, or compute it.

    Args:
        base: the base; of one in the catalogue the original, see resolve_base().
        run: how the basis is computed.
        settings: fields of BasisOrigin that are not its defaults.

    Raises:
        ThirteenError: a setting is out of range, or the base cannot be read.
    """
    checkpoint = open_checkpoint(base.path)
    return cached_basis(BasisOrigin(code_name(base), checkpoint.sha256(), **settings), checkpoint, run)


def cached_basis(origin: BasisOrigin, base: Checkpoint, run: Run = QUIET) -> Basis:
    """Read a basis from the cache, or compute it of its base."""
    cached = _cached(basis_fingerprint(origin.id))
    if not (basis := _read(cached)):
        write_basis(make_basis(base, origin, progress=run.when_needed("basis")), cached)
        basis = read_basis(cached)
    return _renamed(basis, origin.name)  # the file may have another name of the same base


def basis_of_code(code: ShortCode, base: Base | None = None, run: Run = QUIET) -> Basis:
    """Find the basis of a code's numbers in the cache, or compute it.

    Args:
        code: the code.
        base: the very base that it is for; None for that of the catalogue.
        run: how the basis is computed.

    Raises:
        ThirteenError: the base does not exist, or its basis is not the code's.
    """
    cached = _cached(code.fingerprint)
    if base is None and (basis := _read(cached)):
        if basis.origin.name not in catalogue().bases:  # a user's name of the same base
            basis = _renamed(basis, code.name)
        _check_basis(code, basis.origin, str(cached))
        return basis
    checkpoint = open_checkpoint(base.path if base else catalogue_weights(code.name))
    origins = list(grouped_origins(BasisOrigin(code.name, checkpoint.sha256(), numbers=len(code.numbers))))
    origin = next((one for one in origins if basis_fingerprint(one.id) == code.fingerprint), origins[0])
    _check_basis(code, origin, f"{code.name} ({checkpoint.path.name})")
    return cached_basis(origin, checkpoint, run)


def expand_code(text: str, code: ShortCode, base: Base | None, run: Run = QUIET) -> Path:
    """Write the adapter of a code as a PEFT folder in the cache, unless it is there; returns the folder.

    Args:
        text: the code as it is written.
        code: the code.
        base: the base, if the catalogue has none of the code's name; it must be the very one.
        run: how its basis is computed.

    Raises:
        ThirteenError: see basis_of_code().
    """
    own = None if code.name in catalogue().bases else base
    folder = cache_dir() / f"code-{cache_key(version('thirteen'), text.strip().lower())}"
    is_there = (folder / WEIGHTS_FILE).is_file()
    if own or not is_there:  # one's own base is checked each time
        basis = basis_of_code(code, own, run)
        if not is_there:
            write_tinylora_folder(basis, code.numbers, folder, catalogue().hub_id(code.name))
    return folder


def _cached(fingerprint: str) -> Path:
    return cache_dir() / f"basis-{fingerprint}.safetensors"


def _read(cached: Path) -> Basis | None:
    """A basis in the cache; None if there is none, or its file is damaged."""
    with suppress(FileError):
        return read_basis(cached)
    return None


def code_name(base: Base) -> str:
    """The name of a base in codes."""
    stem = re.sub("[^a-z0-9.-]", "-", base.path.name.lower().removesuffix(".gguf")).lstrip(".-")
    return base.name or stem[:NAME_MAX] or "base"


def _renamed(basis: Basis, name: str) -> Basis:
    return replace(basis, origin=replace(basis.origin, name=name))


def _check_basis(code: ShortCode, origin: BasisOrigin, where: str) -> None:
    if origin.name != code.name:
        raise FileError(f"the code is for {code.name}, but the basis of {where} is for {origin.name}")
    if basis_fingerprint(origin.id) != code.fingerprint or origin.numbers != len(code.numbers):
        made_for = (one for one in catalogue().adapters.values() if one.code and one.base == code.name)
        files = "".join(f": {one.base_file}, SHA-256 {one.base_sha256}" for one in made_for)
        raise FileError(
            f"the code was made with the basis {code.fingerprint} of {code.name}, but that of {where} is "
            f"{basis_fingerprint(origin.id)}: give the very base that it was made for{files}"
        )
