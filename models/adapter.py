"""An adapter as a person names it, found: a folder, a GGUF, a name of the catalogue, a hub id or a code.

And with the base that it is merged into, and the basis of a code, which is computed once and cached.
"""

import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..convert.adapter.adapter import WEIGHTS_FILE, adapter_sha256, read_adapter_config
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
from ..convert.adapter.export import EXPORT_VERSION, export_adapter
from ..convert.adapter.short_code import ShortCode, basis_fingerprint, decode_short_code, looks_like_code
from ..convert.source.checkpoint import Checkpoint, open_checkpoint
from ..errors import FileError
from ..files.cache_folder import cache_dir, cache_key, cached
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from .base import Base, base_name, catalogue_weights, fetch, provenance_name, resolve_base
from .catalogue import adapter_code, catalogue


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, found as far as its base need not be there."""

    source: str  # as it was named
    content: Path | ShortCode  # its PEFT folder or GGUF LoRA; or its code

    @property
    def id(self) -> str:
        """Its name in the provenance of what is made of it."""
        return provenance_name(self.source)

    def folder(self, base: Base | None, run: Run = QUIET) -> Path:
        """The PEFT folder; a code becomes one in the cache."""
        if isinstance(self.content, Path):
            return self.content
        return expand_code(adapter_code(self.source), self.content, base, run)

    def lora(self, model: Path, run: Run = QUIET) -> Path:
        """The GGUF LoRA for a model in a GGUF; any other form is exported into the cache."""
        base = None if isinstance(self.content, Path) else resolve_base(str(model))
        found = self.folder(base, run)
        if found.is_file():
            return found
        read_adapter_config(found)  # names what a folder lacks, or holds as a pickle
        # All that an exported adapter depends on: an alpha counts like a weight.
        key = cache_key(
            adapter_sha256(found), file_sha256(model), self.source, version("thirteen"), EXPORT_VERSION
        )
        return cached(
            f"adapter-{key}.gguf", lambda output: export_adapter(found, model, output, adapter_id=self.source)
        )


def find_adapter(source: str, base: str | None = None) -> Adapter:
    """Find an adapter; it is downloaded if needed, but its base is not.

    Args:
        source: a GGUF LoRA, a PEFT folder, a hub id, a name of the catalogue, or a short code.
        base: the base that a code must be for, as in fetch(); None accepts any.

    Raises:
        FileError: there is no such adapter, or its code is damaged or for another base.
    """
    text = adapter_code(source)
    if not looks_like_code(text):
        return Adapter(source, fetch(source, kind="adapter"))
    code = decode_short_code(text)
    if base is not None and (name := base_name(base)) not in (None, code.name):
        raise FileError(f"the code is for {code.name}, but {Path(base).name or base} is {name}")
    return Adapter(source, code)


def resolve_sources(
    base: str, adapter: str | None, run: Run = QUIET
) -> tuple[Path, Path | None, tuple[str, str]]:
    """Find a base and the adapter to merge into it; both are downloaded if needed.

    Returns:
        A folder of safetensors or a GGUF; a PEFT folder, if any; and their names in the provenance.
    """
    named = None if adapter is None else find_adapter(adapter, base)
    found = resolve_base(base)  # a wrong adapter is refused before the base is downloaded
    if named is None:
        return found.path, None, (found.id, "")
    folder = named.folder(found, run)
    trained_on = read_adapter_config(folder).get("base_model_name_or_path")
    expected = catalogue().base_name(trained_on) if trained_on else None
    if expected and found.name and expected != found.name:
        raise FileError(f"{folder.name}: was trained on {expected}, but the base is {found.name}")
    return found.path, folder, (found.id, named.id)


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
