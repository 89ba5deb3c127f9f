"""Adapters as users name them, for a merge and for use at run time: a folder, a name, a hub id, or a code."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.adapter import read_adapter_config
from ..convert.adapter.basis import (
    NAME_MAX,
    Basis,
    BasisOrigin,
    make_basis,
    read_basis,
    write_basis,
)
from ..convert.adapter.export import export_adapter
from ..convert.adapter.short_code import (
    ShortCode,
    basis_fingerprint,
    check_base_name,
    decode_short_code,
    encode_short_code,
    looks_like_code,
    round_to_bfloat16,
)
from ..convert.adapter.tinylora_folder import read_tinylora_numbers, write_tinylora_folder
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import AdapterError, ThirteenError
from ..files.cache_folder import cache_dir
from ..files.gguf_header import read_header
from ..files.hashing import file_sha256
from ..files.progress import Progress
from ..models.catalogue import catalogue
from ..models.fetch import embedded, fetch

_TERMS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # by PEFT's names
_PROVENANCE = "thirteen.base.id"


def _silent(done: int, total: int) -> None:
    """No progress."""


def resolve_adapter_folder(source: str, base: str | None = None, *, progress: Progress = _silent) -> Path:
    """The PEFT folder of an adapter as a user names it, for the base as the user names it.

    Args:
        source: a folder, a hub id, a catalogue name, or a code.
        base: as in `fetch()`; None takes a code whatever base it is for.
        progress: of making the basis of a code, if it is not in the cache.

    Raises:
        ThirteenError: one of its kinds, if there is no such adapter, or a code is damaged or for another
            base.
    """
    if not looks_like_code(source):
        return fetch(source, what="adapter")
    code = decode_short_code(source)
    if base is not None:
        _check_base(code, catalogue_name(base), base)
    folder = cache_dir() / f"code-{hashlib.sha256(source.strip().lower().encode()).hexdigest()[:16]}"
    if not (folder / "adapter_model.safetensors").is_file():
        write_tinylora_folder(
            basis_for_code(code, progress=progress), code.numbers, folder, hub_id_of(code.name)
        )
    return folder


def resolve_runtime_lora(source: str, model: Path, *, progress: Progress = _silent) -> Path:
    """The GGUF LoRA of an adapter as a user names it, to be applied to the GGUF `model` while it runs.

    Args:
        source: a GGUF LoRA, or what resolve_adapter_folder() takes; of the latter one is made in the cache.
        model: what it is to be applied to.
        progress: as resolve_adapter_folder().

    Raises:
        ThirteenError: as resolve_adapter_folder(); or the adapter is for a model of other shapes.
    """
    if not looks_like_code(source) and (source.endswith(".gguf") or Path(source).is_file()):
        return Path(source)
    folder = resolve_adapter_folder(source, str(model), progress=progress)
    told = hashlib.sha256(
        f"{file_sha256(folder / 'adapter_model.safetensors')} {file_sha256(model)}".encode()
    )
    output = cache_dir() / f"adapter-{told.hexdigest()[:16]}.gguf"
    if not output.exists():
        export_adapter(folder, model, output, adapter_id=source)
    return output


def adapter_code(
    source: str, basis_file: Path | None = None, *, exact: bool, progress: Progress = _silent
) -> tuple[str, float]:
    """The code of an adapter as a user names it.

    Args:
        source: as in resolve_adapter_folder().
        basis_file: what it was made with; else that of its base, by the name in its own config.
        exact: whether in float32 and not in bfloat16.
        progress: as resolve_adapter_folder().

    Returns:
        The code, and by how much rounding changed a number at most, relative to it.

    Raises:
        AdapterError: it has no numbers over this basis, or it is not known what its base is.
    """
    folder = resolve_adapter_folder(source, progress=progress)
    basis = read_basis(basis_file) if basis_file else _basis_for(folder, progress)
    numbers = read_tinylora_numbers(folder, basis)
    kept = numbers if exact else round_to_bfloat16(numbers)
    lost = float(np.max(np.abs(kept - numbers) / np.where(numbers, np.abs(numbers), 1)))
    return encode_short_code(
        ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers, exact)
    ), lost


def resolve_basis(
    base: str,
    file: Path | None = None,
    *,
    terms: Mapping[str, int] | None = None,
    progress: Progress = _silent,
) -> Basis:
    """The basis of a base as a user names it, out of a file, the cache, or made.

    Args:
        base: as in fetch().
        file: where it lies, if anywhere.
        terms: its rank, numbers and seed, where they are not the usual ones.
        progress: of making it.

    Raises:
        ThirteenError: one of its kinds, if there is no such base, or the file is the basis of another.
    """
    name = catalogue_name(base)
    if file:
        basis = read_basis(file)
        if name is not None and basis.origin.name != name:
            raise AdapterError(f"{file}: the basis is of {basis.origin.name}, and the base is {name}")
        return basis
    path = base_file(name) if name else fetch(base, what="base")
    checkpoint = open_checkpoint(path)
    own = name or path.stem.lower()[:NAME_MAX]
    check_base_name(own)
    return _kept(BasisOrigin(own, checkpoint.sha256(), **(terms or {})), checkpoint, progress)


def _basis_for(folder: Path, progress: Progress) -> Basis:
    config = read_adapter_config(folder)
    name = catalogue_name(str(config.get("base_model_name_or_path")))
    if name is None:
        raise AdapterError(f"{folder}: its base is not one of the catalogue: give its --basis")
    checkpoint = open_checkpoint(base_file(name))
    terms: dict[str, Any] = {key: config.get(own) for key, own in _TERMS.items()}
    origin = BasisOrigin(name, checkpoint.sha256(), **terms)
    return _kept(origin, checkpoint, progress)


def _kept(origin: BasisOrigin, base: Checkpoint, progress: Progress) -> Basis:
    """A basis out of the cache, put there first if need be."""
    cached = cache_dir() / f"basis-{basis_fingerprint(origin.id)}.safetensors"
    if not cached.is_file():
        write_basis(make_basis(base, origin, progress=progress), cached)
    return read_basis(cached)


def hub_id_of(name: str) -> str:
    """The hub's id of a base by the catalogue's name of it; that name where it has none."""
    known = catalogue().bases.get(name)
    return known.hub_id if known else name


def basis_for_code(code: ShortCode, file: Path | None = None, *, progress: Progress = _silent) -> Basis:
    """The basis that a code's numbers are meant for.

    Args:
        code: whose.
        file: where it lies; else it is taken from the cache, or made from the code's base.
        progress: called with the modules done and in all.

    Raises:
        ThirteenError: one of its kinds, if there is no such base, or its basis is another one.
    """
    if file:
        basis = read_basis(file)
        _check_basis(code, basis.origin, str(file))
        return basis
    cached = cache_dir() / f"basis-{code.fingerprint}.safetensors"
    if cached.is_file():
        basis = read_basis(cached)
        _check_basis(code, basis.origin, str(cached))
        return basis
    path = base_file(code.name)
    checkpoint = open_checkpoint(path)
    origin = BasisOrigin(code.name, checkpoint.sha256(), numbers=len(code.numbers))
    _check_basis(code, origin, f"{code.name} ({path.name})")
    return _kept(origin, checkpoint, progress)


def base_file(name: str) -> Path:
    """The weights of a base by its name, the embedded ones where they are that base's."""
    return embedded() if name == catalogue().embedded.base else fetch(name, what="base")


def check_same_base(model: Path, basis: Basis) -> None:
    """Raise AdapterError if a GGUF tells that it was made from another base than the basis."""
    name = catalogue_name(str(model))
    if name is not None and name != basis.origin.name:
        raise AdapterError(f"{model.name} was made from {name}, and the basis is of {basis.origin.name}")


def catalogue_name(base: str) -> str | None:
    """The catalogue's name of a base as a user names it; None if there is none, or nobody knows."""
    known = catalogue()
    name = base.partition("@")[0]
    if name == "embedded":
        return known.embedded.base
    if name in known.bases:
        return name
    for entry in known.bases.values():
        if name in (entry.hub_id, entry.public_copy):
            return entry.name
    path = Path(base)
    return _name_in(path) if path.is_file() else None


def _name_in(path: Path) -> str | None:
    """The name of the base that a GGUF was made from."""
    if path.name == catalogue().embedded.file:
        return catalogue().embedded.base
    try:
        told = read_header(path).metadata.get(_PROVENANCE)
    except ThirteenError:  # whoever opens it as a model says what is wrong with it
        return None
    return catalogue_name(told) if isinstance(told, str) and not Path(told).is_file() else None


def _check_base(code: ShortCode, name: str | None, base: str) -> None:
    if name is not None and name != code.name:
        raise AdapterError(f"the code is for {code.name}, and {Path(base).name or base} is {name}")


def _check_basis(code: ShortCode, origin: BasisOrigin, where: str) -> None:
    if origin.name != code.name:
        raise AdapterError(f"the code is for {code.name}, and the basis of {where} is for {origin.name}")
    if basis_fingerprint(origin.id) != code.fingerprint or origin.numbers != len(code.numbers):
        raise AdapterError(
            f"the code was made with the basis {code.fingerprint} of {code.name}, and that of {where} is "
            f"{basis_fingerprint(origin.id)}: decode it with the --basis that it was made with"
        )
