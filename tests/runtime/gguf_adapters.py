"""Adapters of the tiny model in GGUF files."""

from pathlib import Path

import numpy as np

from .conftest import tensors, write_file

MATRICES = tuple(
    f"blk.{layer}.{name}.weight"
    for layer in range(2)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
)


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


def write_lora(path: Path, seed: int, rank: int = 2) -> Path:
    """Write a random LoRA of every matrix, large enough to change the tiny model's tokens."""
    random, arrays = np.random.default_rng(seed), tensors()
    return write_factors(
        path,
        {
            name: (
                random.normal(0, 0.3, (rank, arrays[name].shape[1])),
                random.normal(0, 0.3, (arrays[name].shape[0], rank)),
            )
            for name in MATRICES
        },
    )
