"""TinyLoRA (arXiv 2602.04118): W + B (sum_i v_i P_i) A, where v is all that was trained."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AdapterError
from ...files.safetensors import Rows
from .delta import CONFIG, Delta, Parts, Vectors, check_factors, check_rank, take_factors
from .torch_random import torch_normal

_REDRAWN_MAX = 1 << 28  # numbers in one module's projections; published adapters have some hundreds


def read_tinylora(
    folder: Path, config: Mapping[str, Any], parts: Parts, vectors: Vectors
) -> dict[str, Delta]:
    """The deltas by module; modules are numbered, and grouped, in the order of the base's modules.

    Raises:
        AdapterError: parts or vectors are missing or left over, or do not fit each other or the config.
    """
    saved = any("tinylora_P" in found for found in parts.values())
    tying = config.get("weight_tying", 0.0)
    if not isinstance(tying, int | float) or not 0 <= tying <= 1:
        raise AdapterError(f"{folder / CONFIG}: weight_tying is {tying!r}, not between 0 and 1")
    groups = max(1, round(len(parts) * (1.0 - tying)))
    size = max(1, len(parts) // groups)
    used = {module: min(index // size, groups - 1) for index, module in enumerate(parts)}
    if set(used.values()) != set(vectors):
        raise AdapterError(
            f"{folder}: {len(vectors)} trained vectors for {len(set(used.values()))} groups of modules"
        )
    u, r = config.get("u"), config.get("r")
    deltas = {}
    for index, (module, found) in enumerate(parts.items()):
        names = ("tinylora_A", "tinylora_B", *(("tinylora_P",) if saved else ()))
        a, b, *projection = take_factors(folder, module, found, names)
        check_factors(folder, module, a, b)
        check_rank(folder, module, len(a), min(r, len(b), a.shape[1]) if type(r) is int else r)
        vector = vectors[used[module]]  # (u,)
        if vector.shape != (u,):
            raise AdapterError(
                f"{folder}: the vector of {module!r} is {vector.shape}, but {CONFIG} says u = {u!r}"
            )
        shape = (vector.size, len(a), len(a))
        p = projection[0] if saved else _redrawn(folder, config, index, shape)
        if p.shape != shape:
            raise AdapterError(f"{folder}: the projections of {module!r} are {p.shape}, not {shape}")
        deltas[module] = Delta(b @ np.einsum("i,ijk->jk", vector, p), a)
    return deltas


def _redrawn(folder: Path, config: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> Rows:
    seed = config.get("projection_seed")
    if type(seed) is not int or seed < 0:
        raise AdapterError(f"{folder / CONFIG}: projections are not saved, and projection_seed is {seed!r}")
    if math.prod(shape) > _REDRAWN_MAX:
        raise AdapterError(f"{folder}: projections of {shape} are more than {_REDRAWN_MAX:,} numbers")
    return torch_normal(seed + index, 1.0 / math.sqrt(shape[-1]), shape)
