"""What an adapter does to one tensor, as low-rank factors, and the checks that all kinds share."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AdapterError
from ...files.safetensors import Rows

CONFIG = "adapter_config.json"

Parts = dict[str, dict[str, Rows]]  # by module, then by the part's name
Vectors = dict[int, Rows]  # TinyLoRA's trained vectors by group


@dataclass(frozen=True)
class Delta:
    """What the adapter does to one tensor: W + B·A, scaled into B; with DoRA, rows scaled to `magnitude`."""

    b: Rows  # (out, r)
    a: Rows  # (r, in)
    magnitude: Rows | None = None  # (out,)

    def merge(self, rows: Rows, start: int) -> Rows:
        """Add the delta in place to rows `start`… of the base tensor, (n, in)."""
        part = slice(start, start + len(rows))
        rows += self.b[part] @ self.a
        if self.magnitude is not None:
            norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
            rows *= (self.magnitude[part] / norms).astype(np.float32)[:, None]
        return rows

    @property
    def rank(self) -> int:
        """The inner dimension of the factors."""
        return len(self.a)

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm of B·A, by the r x r Gram matrices; DoRA's rescaling is left out."""
        b, a = self.b.astype(np.float64), self.a.astype(np.float64)
        return float(np.sqrt(max(float(np.sum((b.T @ b) * (a @ a.T))), 0.0)))

    def rescales(self, rows: Rows) -> bool:
        """Whether DoRA's magnitudes are other than the norms of the base tensor's `rows`, (out, in)."""
        return self.magnitude is not None and not np.allclose(self.magnitude, np.linalg.norm(rows, axis=1))


def take_factors(folder: Path, module: str, found: Mapping[str, Rows], names: tuple[str, ...]) -> list[Rows]:
    """A module's parts in the order of `names`; AdapterError if it has others, or not all."""
    if set(found) != set(names):
        raise AdapterError(
            f"{folder}: {module!r} has {', '.join(sorted(found))}; expected {', '.join(names)}"
        )
    return [found[name] for name in names]


def check_factors(folder: Path, module: str, a: Rows, b: Rows) -> None:
    """Raise AdapterError unless B is (out, r) and A (r, in)."""
    if a.ndim != 2 or b.ndim != 2 or b.shape[1] != a.shape[0] or 0 in a.shape + b.shape:
        raise AdapterError(f"{folder}: the factors of {module!r} do not fit: B is {b.shape}, A is {a.shape}")


def check_rank(folder: Path, module: str, rank: int, expected: Any) -> None:
    """Raise AdapterError unless the factors have the rank that the config tells."""
    if rank != expected:
        raise AdapterError(f"{folder}: {module!r} has rank {rank}, but {CONFIG} says {expected!r}")
