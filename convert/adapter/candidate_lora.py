"""Adapters over one basis as run-time LoRAs, one after another in one file: only their B is written anew."""

from pathlib import Path
from typing import Self

import numpy as np

from ...errors import AdapterError
from ...files.gguf_header import read_header
from ...files.safetensors import Rows
from ..source.architecture import permute
from ..source.checkpoint import Checkpoint
from ..tensors import TensorSpec
from .basis import Basis, BasisFactors
from .export import write_lora

# The inner dimension in the file, zeros beyond the basis' own: ggml's tiled kernel takes multiples of 16.
# 2,000 tokens take SmolLM2 in Q8_0 4.63 s with rank 2, 3.49 s with rank 16, 2.94 s without an adapter.
_RANK = 16


class CandidateLora:
    """A GGUF LoRA whose numbers change."""

    def __init__(self, basis: Basis, model: Checkpoint, path: Path) -> None:
        """Write the file, for numbers that are all zero.

        Args:
            basis: what the numbers are multiplied with.
            model: the GGUF that the adapters are applied to: its order of rows is the file's.
            path: of the file.

        Raises:
            AdapterError: the basis is one for other shapes.
            OutputError: it cannot be written.
        """
        self.path = path
        specs = {module: _spec(basis, module, model) for module in basis.factors}
        rank = -(-basis.origin.rank // _RANK) * _RANK
        factors: list[tuple[str, Rows]] = []
        for module, of in basis.factors.items():
            target, extra = specs[module].target, rank - basis.origin.rank
            factors.append((f"{target}.lora_a", np.pad(of.a, ((0, extra), (0, 0)))))  # (rank, in)
            factors.append((f"{target}.lora_b", np.zeros((len(of.b), rank), np.float32)))  # (out, rank)
        write_lora(path, model.architecture.name, {}, rank, factors)
        tensors = read_header(path).tensors
        file = np.memmap(path, np.uint8, "r+")
        self._parts: list[
            tuple[Rows, Rows, BasisFactors]
        ] = []  # what is written, the basis' B in its order, the rest
        for module, of in basis.factors.items():
            at = tensors[f"{specs[module].target}.lora_b"]
            held = file[at.offset : at.offset + at.nbytes].view("<f4").reshape(len(of.b), rank)
            self._parts.append((held[:, : basis.origin.rank], _ordered(of.b, specs[module].heads), of))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, numbers: Rows) -> None:
        """Make it the adapter of `numbers`, (numbers,)."""
        for held, b, of in self._parts:
            held[:] = b @ of.mixed(numbers)  # (out, r)

    def close(self) -> None:
        """Let go of the file, and remove it."""
        self._parts.clear()
        self.path.unlink(missing_ok=True)


def _spec(basis: Basis, module: str, model: Checkpoint) -> TensorSpec:
    spec, of = model.specs.get(f"{module}.weight"), basis.factors[module]
    shape = (len(of.b), of.a.shape[1])
    if spec is None or spec.shape != shape or len(of.a) != basis.origin.rank:
        raise AdapterError(
            f"{model.path}: the basis is of {basis.origin.name}: its {module!r} is {shape} of rank "
            f"{len(of.a)}, the model's {spec and spec.shape}"
        )
    return spec


def _ordered(b: Rows, heads: int) -> Rows:
    return permute(b, heads) if heads else b
