"""File sizes as users write them: `600MB`, `572MiB`, `0.6GB`, or bits per weight as in `3.9bpw`."""

import math
import re
from dataclasses import dataclass

from ..errors import OptionError

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "BPW": None}
_BITS_MAX = 32  # F32
_BITS_MIN = 2  # a weight has more in each type of a plan
_PATTERN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", re.IGNORECASE | re.ASCII)
_USAGE = "write it like 600MB, 572MiB, 0.6GB or 3.9bpw"


@dataclass(frozen=True, slots=True)
class FileSize:
    """Size of a whole file, metadata included.

    Attributes:
        text: the size as the user wrote it.
        amount: number of units.
        unit: bytes per unit; None for bits per weight.
    """

    text: str
    amount: float
    unit: int | None

    def file_bytes(self, weights: int) -> int:
        """The size in bytes of a model with this number of weights, rounded down."""
        return math.floor(self.amount * (weights / 8 if self.unit is None else self.unit))

    def check_least(self, weights: int) -> None:
        """Refuse what is far too small for these weights; a plan knows the exact limits."""
        smallest = weights * _BITS_MIN // 8
        if self.file_bytes(weights) < smallest:
            reason = f"cannot be met: {weights:,} weights take over {smallest:,} bytes"
            raise OptionError("size", reason, self.text)


def parse_file_size(text: str, name: str = "size") -> FileSize:
    """Parse a size, the value of the option `name`.

    Raises:
        OptionError: the text has no unit, is not a positive number, or exceeds 32 bits per weight.
    """
    found = _PATTERN.fullmatch(text.strip())
    if not found or found[2].upper() not in _UNITS:
        raise OptionError(name, _USAGE, repr(text))
    amount, unit = float(found[1]), _UNITS[found[2].upper()]
    if not 0 < amount * (unit or 1) < math.inf:
        raise OptionError(name, f"must be a positive number; {_USAGE}", repr(text))
    if unit is None and amount > _BITS_MAX:
        raise OptionError(name, f"no type has more than {_BITS_MAX} bits per weight", repr(text))
    return FileSize(text.strip(), amount, unit)
