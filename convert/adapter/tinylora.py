"""Reads TinyLoRA (arXiv 2602.04118): W + B (sum_i v_i P_i) A, where only v is trained."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FileError, shorten
from ...stats.arrays import Floats
from .delta import CONFIG_FILE, Delta, ModuleTensors, TrainedVectors, check_factors, check_rank, take_factors
from .torch_random import torch_normal

# Numbers redrawn for a module, and for all of them; published adapters have some hundreds a module.
_MODULE_MAX, _ADAPTER_MAX = 1 << 24, 1 << 26


def read_tinylora(
    folder: Path, config: Mapping[str, Any], tensors: ModuleTensors, vectors: TrainedVectors
) -> dict[str, Delta]:
    """Read the deltas by module; modules are numbered and grouped in the order of `tensors`, the base's.

    Raises:
        FileError: tensors or vectors are missing or left over, or do not fit each other or the config.
    """
    saved = any("tinylora_P" in parts for parts in tensors.values())
    groups = _groups(folder, config, tensors)
    if set(groups.values()) != set(vectors):
        raise FileError(
            f"{folder}: {len(vectors)} trained vectors for {len({*groups.values()})} groups of modules"
        )
    u, r = config.get("u"), config.get("r")
    deltas, redrawn = {}, 0
    for index, (module, parts) in enumerate(tensors.items()):
        names = ("tinylora_A", "tinylora_B", *(("tinylora_P",) if saved else ()))
        a, b, *projection = take_factors(folder, module, parts, names)
        check_factors(folder, module, a, b)
        check_rank(folder, module, len(a), min(r, len(b), a.shape[1]) if type(r) is int else r)
        vector = vectors[groups[module]]  # (u,)
        if vector.shape != (u,):
            raise FileError(
                f"{folder}: the vector of {module!r} is {vector.shape}, but {CONFIG_FILE} says "
                f"u = {shorten(u)}"
            )
        shape = (vector.size, len(a), len(a))
        redrawn += 0 if saved else math.prod(shape)
        if redrawn > _ADAPTER_MAX:
            raise FileError(f"{folder}: its projections are more than {_ADAPTER_MAX:,} numbers")
        p = projection[0] if saved else _redraw_projection(folder, config, index, shape)
        if p.shape != shape:
            raise FileError(f"{folder}: the projections of {module!r} are {p.shape}, not {shape}")
        deltas[module] = Delta(b @ np.einsum("i,ijk->jk", vector, p), a)
    return deltas


def _groups(folder: Path, config: Mapping[str, Any], tensors: ModuleTensors) -> dict[str, int]:
    """The group of each module; modules of a group share a trained vector."""
    tying = config.get("weight_tying", 0.0)
    if not isinstance(tying, int | float) or not 0 <= tying <= 1:
        raise FileError(f"{folder / CONFIG_FILE}: weight_tying is {shorten(tying)}, not between 0 and 1")
    count = max(1, round(len(tensors) * (1.0 - tying)))
    size = max(1, len(tensors) // count)
    return {module: min(index // size, count - 1) for index, module in enumerate(tensors)}


def _redraw_projection(folder: Path, config: Mapping[str, Any], index: int, shape: tuple[int, ...]) -> Floats:
    """The projections of module number `index`, (u, r, r), which PEFT draws from `projection_seed`."""
    seed = config.get("projection_seed")
    if type(seed) is not int or seed < 0:
        raise FileError(f"{folder / CONFIG_FILE}: without projections, projection_seed is {shorten(seed)}")
    if math.prod(shape) > _MODULE_MAX:
        raise FileError(f"{folder}: projections of {shape} are more than {_MODULE_MAX:,} numbers")
    return torch_normal(seed + index, 1.0 / math.sqrt(shape[-1]), shape)
