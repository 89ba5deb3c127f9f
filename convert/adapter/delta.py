"""Low-rank change of one tensor by an adapter, and the checks that all kinds of adapters share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...stats.arrays import Floats

CONFIG_FILE = "adapter_config.json"
_RANK_MAX = 4096

ModuleTensors = dict[str, dict[str, Floats]]  # by module, then by the part's name
TrainedVectors = dict[int, Floats]  # TinyLoRA's vectors by group


@dataclass(frozen=True)
class Delta:
    """The change of one tensor: W + B·A with the scale folded into B; DoRA scales rows to `magnitude`."""

    b: Floats  # (out, r)
    a: Floats  # (r, in)
    magnitude: Floats | None = None  # (out,)

    def merge(self, rows: Floats, start: int) -> Floats:
        """Merge the delta in place into rows `start`… of the base tensor, (n, in)."""
        part = slice(start, start + len(rows))
        rows += self.b[part] @ self.a
        if self.magnitude is not None:
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
            rows *= (self.magnitude[part] / norms).astype(np.float32)[:, None]
        return rows

    def select_rows(self, rows: NDArray[np.int64]) -> "Delta":
        """The change of some rows of the tensor."""
        magnitude = None if self.magnitude is None else self.magnitude[rows]
        return replace(self, b=self.b[rows], magnitude=magnitude)

    @property
    def rank(self) -> int:
        """The inner dimension of the factors."""
        return len(self.a)

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of B·A, from the r x r Gram matrices; it ignores DoRA's rescaling."""
        b, a = self.b.astype(np.float64), self.a.astype(np.float64)
        return float(np.sqrt(max(float(np.sum((b.T @ b) * (a @ a.T))), 0.0)))

    def rescales(self, rows: Floats) -> bool:
        """Whether DoRA's magnitudes differ from the norms of the base tensor's `rows`, (out, in)."""
        return self.magnitude is not None and not np.allclose(self.magnitude, np.linalg.norm(rows, axis=1))


def take_factors(
    folder: Path, module: str, parts: Mapping[str, Floats], names: tuple[str, ...]
) -> list[Floats]:
    """A module's tensors in the order of `names`; FileError if it has others, or not all."""
    if set(parts) != set(names):
        raise FileError(f"{folder}: {module!r} has {', '.join(sorted(parts))}; expected {', '.join(names)}")
    return [parts[name] for name in names]


def check_factors(folder: Path, module: str, a: Floats, b: Floats) -> None:
    """Raise FileError unless B is (out, r) and A (r, in)."""
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0] or 0 in a.shape + b.shape:
        raise FileError(f"{folder}: the factors of {module!r} do not fit: B is {b.shape}, A is {a.shape}")


def check_rank(folder: Path, module: str, rank: int, expected: Any) -> None:
    """Raise FileError unless the factors have the rank that the config gives, which must not be huge."""
    if rank > _RANK_MAX:  # an export pads all matrices to the largest rank
        raise FileError(f"{folder}: {module!r} has rank {rank}, more than {_RANK_MAX}")
    if rank != expected:
        raise FileError(f"{folder}: {module!r} has rank {rank}, but {CONFIG_FILE} says {shorten(expected)}")
