"""Metadata of a GGUF header, read with the type and range of each value checked."""

from dataclasses import dataclass
from typing import Any

from gguf.constants import GGUFValueType

from ...errors import FileError
from .header import Header

MERGED_ADAPTER = "thirteen.adapter.id"  # key of a file with a merged adapter
# Keys for what a tokenizer does and llama.cpp has no key for: no space is put before a text that begins with
# one, as by Metaspace in tokenizer.json; and these control tokens take the white space after them.
SPACE_ONCE, STRIPPING_TOKENS = "thirteen.tokenizer.space_once", "thirteen.tokenizer.rstrip"


@dataclass(frozen=True)
class CheckedMetadata:
    """Metadata by key; a missing, ill-typed or out-of-range value is an error that names file and key."""

    header: Header  # header of the GGUF file

    def error(self, problem: str) -> FileError:
        """Make an error about the file."""
        return FileError(f"{self.header.path}: {problem:.300}")  # a value can be as long as the file

    def check_whole(self) -> None:
        """Refuse a part of a split file. A merged one keeps the keys of its parts, with a count of 0."""
        if any(key.startswith("split.") for key in self.header.fields):
            count = self.get("split.count", GGUFValueType.UINT16)
            if count > 1:
                raise self.error(f"one part of {count}; merge the parts first (llama-gguf-split --merge)")

    def get(self, key: str, type_: GGUFValueType) -> Any:
        """Return a value of exactly this type."""
        field = self.header.fields.get(key)
        if field is None:
            raise self.error(f"metadata key {key!r} is missing")
        if field.type is not type_:
            raise self.error(f"metadata key {key!r} is of type {field.type.name}, not {type_.name}")
        return field.value

    def count(self, key: str, maximum: int, default: int | None = None) -> int:
        """Return a UINT32 from 1 to `maximum`, or the default, if there is one, where the key is missing."""
        if default is not None and key not in self.header.fields:
            return default
        value = self.get(key, GGUFValueType.UINT32)
        if not 1 <= value <= maximum:
            raise self.error(f"metadata key {key!r} is {value}; it must be from 1 to {maximum}")
        return int(value)

    def array(self, key: str, element: GGUFValueType) -> list[Any]:
        """Return an array whose elements have exactly this type."""
        values: list[Any] = self.get(key, GGUFValueType.ARRAY)
        if self.header.fields[key].element is not element:
            raise self.error(f"metadata key {key!r} is not an array of {element.name}")
        return values
