"""An adapter as a person names it, found: a folder, a GGUF, a name of the catalogue, a hub id or a code.

And with the base that it is merged into.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..convert.adapter.adapter import adapter_sha256, read_adapter_config
from ..convert.adapter.export import EXPORT_VERSION, export_adapter
from ..convert.adapter.short_code import ShortCode, decode_short_code, looks_like_code
from ..errors import FileError
from ..files.cache_folder import cache_key, cached
from ..files.progress import QUIET, Run
from ..files.received_files import file_sha256
from .base import Base, base_name, fetch, provenance_name, resolve_base
from .basis import expand_code
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
