"""Adapters of the tiny model in GGUF files."""

from pathlib import Path

import gguf
import numpy as np

from .conftest import finish, tensors

MATRICES = tuple(
    f"blk.{layer}.{name}.weight"
    for layer in range(2)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
)


def write_factors(
    path: Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], architecture: str = "llama"
) -> Path:
    """Write a LoRA from the factors of each matrix, a (r, in) and b (out, r); alpha is the rank."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(next(iter(factors.values()))[0].shape[0]))
    for name, (a, b) in factors.items():
        writer.add_tensor(name + ".lora_a", np.ascontiguousarray(a, np.float32))
        writer.add_tensor(name + ".lora_b", np.ascontiguousarray(b, np.float32))
    return finish(writer, path)


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
