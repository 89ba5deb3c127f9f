"""The base and the adapter of a conversion, as a person names them, found: files."""

from dataclasses import dataclass
from pathlib import Path

from ..convert.adapter.adapter import read_adapter_config
from ..convert.source_ids import SourceIds
from ..errors import FileError
from ..files.progress import QUIET, Run
from .adapter import find_adapter
from .base import resolve_base
from .catalogue import catalogue


@dataclass(frozen=True, slots=True)
class Sources:
    """What a file is converted from.

    Attributes:
        base: a folder of safetensors, or a GGUF.
        adapter: a PEFT folder to merge into it; None for no adapter.
        ids: their names in the provenance of the file.
    """

    base: Path
    adapter: Path | None
    ids: SourceIds


def resolve_sources(base: str, adapter: str | None, run: Run = QUIET) -> Sources:
    """Find a base and the adapter to merge into it; both are downloaded if needed.

    Args:
        base: see fetch().
        adapter: see find_adapter(); None for no adapter.
        run: how the basis of a code is computed.

    Raises:
        ThirteenError: one of them does not exist, or the adapter is for another base.
    """
    named = None if adapter is None else find_adapter(adapter, base)
    found = resolve_base(base)  # a wrong adapter is refused before the base is downloaded
    if named is None:
        return Sources(found.path, None, SourceIds(found.id))
    folder = named.folder(found, run)
    trained_on = read_adapter_config(folder).get("base_model_name_or_path")
    expected = catalogue().base_name(trained_on) if trained_on else None
    if expected and found.name and expected != found.name:
        raise FileError(f"{folder.name}: was trained on {expected}, but the base is {found.name}")
    return Sources(found.path, folder, SourceIds(found.id, named.id))
