"""Adapters of the tiny model in GGUF files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .conftest import tensors, write_file

SHAPES = {
    name: array.shape for name, array in tensors().items() if name.startswith("blk.") and array.ndim == 2
}
MATRICES = tuple(SHAPES)


def write_factors(
    path: Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], architecture: str = "llama"
) -> Path:
    """Write a LoRA from the factors of each matrix, a (r, in) and b (out, r); alpha is the rank."""
    alpha = float(next(iter(factors.values()))[0].shape[0])
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": alpha}
    arrays = {
        f"{name}.lora_{part}": np.ascontiguousarray(array, np.float32)
        for name, both in factors.items()
        for part, array in zip("ab", both, strict=True)
    }
    return write_file(path, architecture, values, arrays)


def write_lora(
    path: Path,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    architecture: str = "llama",
    scale: float = 0.3,
) -> Path:
    """Write a random LoRA of rank 2, by default of every matrix and large enough to change tokens."""
    random = np.random.default_rng(seed)
    factors = {
        name: (random.normal(0, scale, (2, columns)), random.normal(0, scale, (rows, 2)))
        for name, (rows, columns) in shapes.items()
    }
    return write_factors(path, factors, architecture)
