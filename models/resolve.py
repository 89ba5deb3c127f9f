"""Resolution of adapters and bases as users name them: a path, a catalogue name, a hub id or a short code."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..convert.adapter.adapter import adapter_sha256, read_adapter_config
from ..convert.adapter.basis import (
    NAME_MAX,
    Basis,
    BasisOrigin,
    grouped_origins,
    make_basis,
    read_basis,
    write_basis,
)
from ..convert.adapter.export import EXPORT_VERSION, export_adapter
from ..convert.adapter.short_code import (
    ShortCode,
    basis_fingerprint,
    decode_short_code,
    encode_short_code,
    looks_like_code,
    round_to_bfloat16,
)
from ..convert.adapter.tinylora_folder import read_tinylora_numbers, with_saved_groups, write_tinylora_folder
from ..convert.provenance import provenance_name
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import FileError, ThirteenError
from ..files.cache_folder import cache_dir, cache_key
from ..files.gguf.header import read_header
from ..files.gguf.metadata import MERGED_ADAPTER
from ..files.hashing import file_sha256
from ..files.progress import Progress, no_progress
from ..models.catalogue import adapter_code, catalogue
from ..models.embedded import embedded
from ..models.fetch import fetch

_PEFT_KEYS = {"rank": "r", "numbers": "u", "seed": "projection_seed"}  # of adapter_config.json
_PROVENANCE = "thirteen.base.id"


def resolve_adapter_folder(source: str, base: str | None = None, *, progress: Progress = no_progress) -> Path:
    """Find the PEFT folder of an adapter; a code is expanded into one in the cache.

    Args:
        source: a folder, a hub id, a catalogue name or a short code.
        base: the base that a code must be for, as in fetch(), of which the basis of a code is computed whose
            base is not in the catalogue; None accepts any of the catalogue.
        progress: called while the basis of a code is computed.

    Raises:
        ThirteenError: the adapter does not exist, or its code is damaged or for another base.
    """
    code = find_adapter(source, base)
    if isinstance(code, Path):
        return code
    if base is not None and code.name not in catalogue().bases:
        _code_origin(code, open_checkpoint(fetch(base, kind="base")))
    folder = cache_dir() / f"code-{cache_key(version('thirteen'), adapter_code(source).strip().lower())}"
    if not (folder / "adapter_model.safetensors").is_file():
        basis = basis_for_code(code, base, progress=progress)
        write_tinylora_folder(basis, code.numbers, folder, hub_id_of(code.name))
    return folder


def find_adapter(source: str, base: str | None = None) -> Path | ShortCode:
    """Find an adapter as far as its base need not be there: its path, downloaded if needed, or its code.

    Args:
        source: a GGUF LoRA, or a source for resolve_adapter_folder().
        base: see resolve_adapter_folder().

    Raises:
        ThirteenError: see resolve_adapter_folder().
    """
    source = adapter_code(source)
    if not looks_like_code(source):
        return fetch(source, kind="adapter")
    code = decode_short_code(source)
    if base is not None and (name := catalogue_name(base)) not in (None, code.name):
        raise FileError(f"the code is for {code.name}, but {Path(base).name or base} is {name}")
    return code


def resolve_runtime_lora(
    source: str, model: Path, *, found: Path | ShortCode | None = None, progress: Progress = no_progress
) -> Path:
    """Find the GGUF LoRA of an adapter; any other form is exported into the cache.

    Args:
        source: a GGUF LoRA, or a source for resolve_adapter_folder().
        model: the GGUF that the LoRA is for.
        found: what find_adapter() has found of the source; by default it is asked.
        progress: see resolve_adapter_folder().

    Raises:
        ThirteenError: see resolve_adapter_folder(); or the adapter does not fit the model.
    """
    found = found or find_adapter(source, str(model))
    if not isinstance(found, Path):
        found = resolve_adapter_folder(source, str(model), progress=progress)
    if found.is_file():
        return found
    # All that an exported adapter depends on: an alpha counts like a weight.
    key = cache_key(adapter_sha256(found), file_sha256(model), source, version("thirteen"), EXPORT_VERSION)
    output = cache_dir() / f"adapter-{key}.gguf"
    if not output.exists():
        export_adapter(found, model, output, adapter_id=source)
    return output


def encode_adapter(
    source: str, base: str | None = None, *, exact: bool, progress: Progress = no_progress
) -> tuple[str, float]:
    """Encode an adapter as a short code.

    Args:
        source: see resolve_adapter_folder().
        base: the base that it was trained on; by default that of the catalogue which its config names.
        exact: keep its numbers in float32 instead of bfloat16.
        progress: see resolve_adapter_folder().

    Returns:
        The code, and the largest relative rounding error of a number.

    Raises:
        FileError: the adapter was not trained with a basis of this base, or its base is unknown.
    """
    folder = resolve_adapter_folder(source, base, progress=progress)
    basis = _basis_of_adapter(folder, base, progress)
    numbers = read_tinylora_numbers(folder, basis)
    rounded = numbers if exact else round_to_bfloat16(numbers)
    error = float(np.max(np.abs(rounded - numbers) / np.where(numbers, np.abs(numbers), 1)))
    code = ShortCode(basis.origin.name, basis_fingerprint(basis.origin.id), numbers, exact)
    return encode_short_code(code), error


def resolve_basis(
    base: str,
    file: Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> Basis:
    """Find the basis of a base: read it from a file or the cache, or compute it.

    Args:
        base: see fetch().
        file: a basis file.
        settings: fields of BasisOrigin that are not its defaults.
        progress: called while the basis is computed.

    Raises:
        ThirteenError: the base does not exist, or the file is the basis of another one.
    """
    name = catalogue_name(base)
    if file:
        basis = read_basis(file)
        if name is not None and basis.origin.name != name:
            raise FileError(f"{file}: the basis is of {basis.origin.name}, but the base is {name}")
        return basis
    name, checkpoint = _open_base(base)
    return _cached_basis(BasisOrigin(name, checkpoint.sha256(), **(settings or {})), checkpoint, progress)


def _open_base(base: str) -> tuple[str, Checkpoint]:
    """Name in codes and weights of a base; one of the catalogue has the catalogue's weights."""
    name = catalogue_name(base)
    path = base_file(name) if name and "@" not in base else fetch(base, kind="base")
    stem = re.sub("[^a-z0-9.-]", "-", path.name.lower().removesuffix(".gguf")).lstrip(".-")
    return name or stem[:NAME_MAX] or "base", open_checkpoint(path)


def _basis_of_adapter(folder: Path, base: str | None, progress: Progress) -> Basis:
    config = read_adapter_config(folder)
    if (kind := config.get("peft_type")) != "TINYLORA":
        raise FileError(f"{folder}: a short code is for a TinyLoRA; this is {kind}")
    base = base or recorded_name(str(config.get("base_model_name_or_path")))
    if base is None:
        raise FileError(f"{folder}: its base is not in the catalogue; use --base")
    name, checkpoint = _open_base(base)
    settings: dict[str, Any] = {field: config.get(key) for field, key in _PEFT_KEYS.items()}
    origin = with_saved_groups(BasisOrigin(name, checkpoint.sha256(), **settings), folder)
    return _cached_basis(origin, checkpoint, progress)


def _cached_basis(origin: BasisOrigin, base: Checkpoint, progress: Progress) -> Basis:
    cached = cache_dir() / f"basis-{basis_fingerprint(origin.id)}.safetensors"
    if not cached.is_file():
        write_basis(make_basis(base, origin, progress=progress), cached)
    return _renamed(read_basis(cached), origin.name)  # the file may have another name of the same base


def _renamed(basis: Basis, name: str) -> Basis:
    return replace(basis, origin=replace(basis.origin, name=name))


def base_id(base: str) -> str:
    """The name of a base, as in fetch(), to record in its adapters: its hub id if it is in the catalogue.

    A GGUF that an adapter was merged into is another base.
    """
    merged = _is_file(base) and MERGED_ADAPTER in read_header(Path(base)).metadata
    name = None if merged else catalogue_name(base)
    return hub_id_of(name) if name else provenance_name(base)


def hub_id_of(name: str) -> str:
    """Return the hub id of a base in the catalogue; of any other base its name."""
    known = catalogue().bases.get(name)
    return known.hub_id if known else name


def basis_for_code(code: ShortCode, base: str | None = None, *, progress: Progress = no_progress) -> Basis:
    """Find the basis of a code's numbers in the cache, or compute it.

    Args:
        code: the code.
        base: the base, if the catalogue has none of the code's name.
        progress: called with the modules done and in all.

    Raises:
        ThirteenError: the base does not exist, or its basis is not the code's.
    """
    cached = cache_dir() / f"basis-{code.fingerprint}.safetensors"
    known = code.name in catalogue().bases
    if cached.is_file():
        basis = read_basis(cached)
        if basis.origin.name not in catalogue().bases:  # a user's name of the same base
            basis = _renamed(basis, code.name)
        _check_basis(code, basis.origin, str(cached))
        return basis
    path = base_file(code.name) if known or base is None else fetch(base, kind="base")
    checkpoint = open_checkpoint(path)
    return _cached_basis(_code_origin(code, checkpoint), checkpoint, progress)


def _code_origin(code: ShortCode, base: Checkpoint) -> BasisOrigin:
    """The origin of the code's basis if the base is the code's; FileError if it is another."""
    origin = BasisOrigin(code.name, base.sha256(), numbers=len(code.numbers))
    origins = list(grouped_origins(origin))
    origin = next((one for one in origins if basis_fingerprint(one.id) == code.fingerprint), origins[0])
    _check_basis(code, origin, f"{code.name} ({base.path.name})")
    return origin


def base_file(name: str) -> Path:
    """Find the weights of a base by its catalogue name, which may be the embedded one."""
    return embedded() if name == catalogue().embedded.base else fetch(name, kind="base")


def catalogue_name(base: str) -> str | None:
    """Find the catalogue name of a base: a name, a hub id or a GGUF made from it; None if unknown.

    A path that exists is that file or folder, as in fetch(), even if it has a name of the catalogue.
    """
    if os.path.exists(base):  # noqa: PTH110 - Path.exists() raises for a name that is too long
        return _gguf_base_name(Path(base)) if _is_file(base) else None
    return _entry_name(base)


def recorded_name(base: str) -> str | None:
    """Find the catalogue name of a base that an adapter's config names, whatever the current folder holds."""
    return _entry_name(base) or catalogue_name(base)


def _entry_name(base: str) -> str | None:
    """The catalogue name of a base, from its name or a hub id."""
    known = catalogue()
    name = base.partition("@")[0]
    if name == "embedded":
        return known.embedded.base
    if name in known.bases:
        return name
    ids = (entry.name for entry in known.bases.values() if name in (entry.hub_id, entry.public_copy))
    return next(ids, None)


def _is_file(name: str) -> bool:
    """Whether a name is a file's; one that is too long for the file system is none."""
    return os.path.isfile(name)  # noqa: PTH113 - Path.is_file() raises for such a name


def _gguf_base_name(path: Path) -> str | None:
    """Name of the base that a GGUF was made from."""
    if path.name == catalogue().embedded.file:
        return catalogue().embedded.base
    try:
        base = read_header(path).metadata.get(_PROVENANCE)
    except ThirteenError:  # reported when the file is opened as a model
        return None
    return _entry_name(base) if isinstance(base, str) else None


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
