"""Adapters as a person names them, found: a path, a name of the catalogue, a hub id or a short code."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256, read_adapter_config
from ..convert.adapter.export import EXPORT_VERSION, export_adapter
from ..convert.adapter.short_code import ShortCode, decode_short_code, looks_like_code
from ..convert.provenance import provenance_name
from ..errors import FileError
from ..files.cache_folder import cache_dir, cache_key
from ..files.hashing import file_sha256
from ..files.progress import QUIET, Run
from .base import Base, base_name, recorded_base_name, resolve_base
from .basis import expand_code
from .catalogue import adapter_code
from .fetch import fetch


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter to merge: its PEFT folder, and its name in the provenance of what is made of it."""

    path: Path
    id: str


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """An adapter, found as far as its base need not be there.

    Attributes:
        source: as it was named.
        content: its PEFT folder or GGUF LoRA; or its code.
    """

    source: str
    content: Path | ShortCode

    def folder(self, base: Base | None, run: Run = QUIET) -> Path:
        """The PEFT folder; a code becomes one in the cache.

        Raises:
            ThirteenError: see expand_code().
        """
        if isinstance(self.content, Path):
            return self.content
        return expand_code(adapter_code(self.source), self.content, base, run.when_needed("basis"))

    def lora(self, model: Path, run: Run = QUIET) -> Path:
        """The GGUF LoRA for a model in a GGUF; any other form is exported into the cache.

        Raises:
            ThirteenError: the adapter does not fit the model, or see expand_code().
        """
        found = self.content
        if not isinstance(found, Path):
            found = self.folder(resolve_base(str(model)), run)
        if found.is_file():
            return found
        # All that an exported adapter depends on: an alpha counts like a weight.
        key = cache_key(
            adapter_sha256(found), file_sha256(model), self.source, version("thirteen"), EXPORT_VERSION
        )
        output = cache_dir() / f"adapter-{key}.gguf"
        if not output.exists():
            export_adapter(found, model, output, adapter_id=self.source)
        return output


def find_adapter(source: str, base: str | None = None) -> FoundAdapter:
    """Find an adapter; it is downloaded if needed, but its base is not.

    Args:
        source: a GGUF LoRA, a PEFT folder, a hub id, a name of the catalogue, or a short code.
        base: the base that a code must be for, as in fetch(); None accepts any.

    Raises:
        FileError: there is no such adapter.
        FileError: its code is damaged, or for another base.
    """
    text = adapter_code(source)
    if not looks_like_code(text):
        return FoundAdapter(source, fetch(source, kind="adapter"))
    code = decode_short_code(text)
    if base is not None and (name := base_name(base)) not in (None, code.name):
        raise FileError(f"the code is for {code.name}, but {Path(base).name or base} is {name}")
    return FoundAdapter(source, code)


def resolve_base_and_adapter(base: str, adapter: str | None, run: Run = QUIET) -> tuple[Base, Adapter | None]:
    """Find a base, and the PEFT folder of an adapter to merge into it; both are downloaded if needed.

    Args:
        base: see fetch().
        adapter: see find_adapter(); None for no adapter.
        run: how the basis of a code is computed.

    Raises:
        ThirteenError: one of them does not exist, or the adapter is for another base.
    """
    if adapter is None:
        return resolve_base(base), None
    found = find_adapter(adapter, base)  # a wrong one is refused before the base is downloaded
    resolved = resolve_base(base)
    folder = found.folder(resolved, run)
    trained_on = read_adapter_config(folder).get("base_model_name_or_path")
    expected = recorded_base_name(trained_on) if trained_on else None
    if expected and resolved.name and expected != resolved.name:
        raise FileError(f"{folder.name}: was trained on {expected}, but the base is {resolved.name}")
    return resolved, Adapter(folder, provenance_name(adapter))
