"""The low-rank changes of an adapter, read from PEFT's tensors and settings.

LoRA (arXiv 2106.09685), rsLoRA (2312.03732) and DoRA (2402.09353); TinyLoRA (2602.04118), W + B (sum_i v_i
P_i) A, where only v is trained. B includes the scale.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...stats import Floats
from .deterministic import torch_normal

CONFIG_FILE = "adapter_config.json"
# Expressions that could take long: with repeated groups, with flags, or with more than two repeats.
_SLOW = re.compile(r"\)[*+{?]|\(\?|([*+{].*){3}")
_REDRAWN_MAX = 1 << 26  # numbers; published adapters have some hundreds a module

ModuleTensors = dict[str, dict[str, Floats]]  # by module, then by the part's name
TrainedVectors = dict[int, Floats]  # TinyLoRA's vectors by group
_Patterns = list[tuple[re.Pattern[str], Any]]


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

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the tensor, (out, in)."""
        return len(self.b), self.a.shape[1]

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of B·A, from the r x r Gram matrices; it ignores DoRA's rescaling."""
        b, a = self.b.astype(np.float64), self.a.astype(np.float64)
        return float(np.sqrt(max(float(np.sum((b.T @ b) * (a @ a.T))), 0.0)))

    def rescales(self, rows: Floats) -> bool:
        """Whether DoRA's magnitudes differ from the norms of the base tensor's `rows`, (out, in)."""
        return self.magnitude is not None and not np.allclose(self.magnitude, np.linalg.norm(rows, axis=1))


def read_lora(
    folder: Path, config: Mapping[str, Any], tensors: ModuleTensors
) -> tuple[dict[str, Delta], str]:
    """The deltas by module, and the kind: lora, rslora or dora; FileError if the tensors do not fit."""
    use_dora, use_rslora = (bool(config.get(key)) for key in ("use_dora", "use_rslora"))
    ranks, alphas = (_patterns(folder, config, key) for key in ("rank_pattern", "alpha_pattern"))
    deltas = {}
    for module, parts in tensors.items():
        embedding = "lora_embedding_A" in parts  # saved transposed
        shapes: dict[str, tuple[str, ...]] = (
            {"lora_embedding_A": ("r", "out"), "lora_embedding_B": ("in", "r")}
            if embedding
            else {"lora_A": ("r", "in"), "lora_B": ("out", "r")}
        )
        if use_dora:
            shapes["lora_magnitude_vector"] = ("out",)
        a, b, *magnitude = _take(folder, module, parts, shapes, r=_by_pattern(ranks, module, config.get("r")))
        if embedding:
            a, b = b.T, a.T
        alpha = _by_pattern(alphas, module, config.get("lora_alpha"))
        scale = alpha / (math.sqrt(len(a)) if use_rslora else len(a))
        deltas[module] = Delta((b * np.float32(scale)).astype(np.float32), a, *magnitude)
    return deltas, "dora" if use_dora else "rslora" if use_rslora else "lora"


def read_tinylora(
    folder: Path, config: Mapping[str, Any], tensors: ModuleTensors, vectors: TrainedVectors
) -> dict[str, Delta]:
    """The deltas by module; modules are numbered and grouped in the order of `tensors`, the base's.

    Projections that were not saved are drawn from `projection_seed`, as by PEFT.
    """
    shapes = {"tinylora_A": ("r", "in"), "tinylora_B": ("out", "r"), "vector": ("u",)}
    if saved := any("tinylora_P" in parts for parts in tensors.values()):
        shapes["tinylora_P"] = ("u", "r", "r")
    # The number of groups that share a vector.
    count = max(1, round(len(tensors) * (1.0 - config.get("weight_tying", 0.0))))
    size = max(1, len(tensors) // count)
    groups = {module: min(index // size, count - 1) for index, module in enumerate(tensors)}
    if {*groups.values()} != vectors.keys():
        raise FileError(
            f"{folder}: {len(vectors)} trained vectors for {len({*groups.values()})} groups of modules"
        )
    deltas, redrawn = {}, 0
    for index, (module, parts) in enumerate(tensors.items()):
        vector = vectors[groups[module]]  # (u,)
        a, b, _, *projection = _take(folder, module, parts | {"vector": vector}, shapes, u=config.get("u"))
        if not saved:
            shape = (vector.size, len(a), len(a))
            redrawn += math.prod(shape)
            if redrawn > _REDRAWN_MAX:
                raise FileError(f"{folder}: its projections are more than {_REDRAWN_MAX:,} numbers")
            projection = [torch_normal(config["projection_seed"] + index, 1.0 / math.sqrt(len(a)), shape)]
        deltas[module] = Delta(b @ np.einsum("i,ijk->jk", vector, projection[0]), a)
    return deltas


def _take(
    folder: Path,
    module: str,
    parts: Mapping[str, Floats],
    shapes: Mapping[str, tuple[str, ...]],
    **sizes: Any,
) -> list[Floats]:
    """A module's tensors in the order of `shapes`; a name in a shape has one size, which may be given."""
    found, known = {name: rows.shape for name, rows in parts.items()}, dict(sizes)
    fits = found.keys() == shapes.keys() and all(
        len(found[name]) == len(shape)
        and all(0 < known.setdefault(key, size) == size for key, size in zip(shape, found[name], strict=True))
        for name, shape in shapes.items()
    )
    if not fits:
        has = ", ".join(f"{name} {shape}" for name, shape in sorted(found.items()))
        expected = ", ".join(f"{name} ({', '.join(shape)})" for name, shape in shapes.items())
        given = "".join(f", with {key} = {shorten(size)} of {CONFIG_FILE}" for key, size in sizes.items())
        raise FileError(f"{folder}: {module!r} has {has}; expected {expected}{given}")
    return [parts[name] for name in shapes]


def _by_pattern(patterns: _Patterns, module: str, default: Any) -> Any:
    """A module's value by PEFT's rule: the first pattern that matches the end of its name."""
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _patterns(folder: Path, config: Mapping[str, Any], key: str) -> _Patterns:
    """The patterns of a setting with their values; FileError for those that could take long to match."""
    values = config.get(key) or {}
    if slow := next(filter(_SLOW.search, values), None):
        raise FileError(f"{folder / CONFIG_FILE}: the {key} {shorten(slow)} is too complex")
    return [(re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in values.items()]
