"""The size that a user asks for: `600MB`, `572MiB`, `0.6GB`, or bits a weight as in `3.9bpw`."""

import math
import re
from dataclasses import dataclass

from ...errors import OutputError

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_BITS = "BPW"
_BITS_MAX = 32  # F32
_PATTERN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", re.IGNORECASE | re.ASCII)
_LIKE = "write it like 600MB, 572MiB, 0.6GB or 3.9bpw"


@dataclass(frozen=True, slots=True)
class FileSize:
    """A size of a whole file, metadata included.

    Attributes:
        text: as the user wrote it.
        amount: how many of `unit`.
        unit: bytes for one, or none where the amount is bits a weight.
    """

    text: str
    amount: float
    unit: int | None

    def file_bytes(self, weights: int) -> int:
        """The most bytes that a file of a model of so many weights may have."""
        return math.floor(self.amount * (weights / 8 if self.unit is None else self.unit))


def parse_file_size(text: str) -> FileSize:
    """Read a size.

    Raises:
        OutputError: it has no unit, is not a positive number, or says more than any type needs.
    """
    found = _PATTERN.fullmatch(text.strip())
    unit = found[2].upper() if found else ""
    if not found or (unit not in _UNITS and unit != _BITS):
        raise OutputError(f"--size {text!r}: {_LIKE}")
    amount = float(found[1])
    if not 0 < amount < math.inf:
        raise OutputError(f"--size {text!r}: must be more than nothing; {_LIKE}")
    if unit == _BITS and amount > _BITS_MAX:
        raise OutputError(f"--size {text!r}: no type has more than {_BITS_MAX} bits a weight")
    return FileSize(text.strip(), amount, _UNITS.get(unit))
