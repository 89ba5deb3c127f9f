"""An array of strings as a GGUF file holds it."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

LENGTH_BYTES = 8  # of the length before each string


class StringArray(Sequence[str]):
    """An immutable array of strings that decodes each when it is asked for.

    As Python strings, the tokens of a vocabulary would take five to ten times their bytes in the file. A few
    tokens of published vocabularies are not UTF-8; surrogates preserve their bytes.
    """

    __slots__ = ("_data", "_ends")

    def __init__(self, data: bytes, ends: "array[int]") -> None:
        """Make an array.

        Args:
            data: the strings, each after its length.
            ends: where each of them ends in the data.
        """
        self._data, self._ends = data, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return self._decode(self._ends[index - 1] if index else 0, self._ends[index])

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._decode(start, end)
            start = end

    def raw(self) -> list[bytes]:
        """The bytes of all strings."""
        data = self._data
        return [data[start + LENGTH_BYTES : end] for start, end in pairwise((0, *self._ends))]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self._data == other._data
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"

    def _decode(self, start: int, end: int) -> str:
        return self._data[start + LENGTH_BYTES : end].decode("utf-8", "surrogateescape")
