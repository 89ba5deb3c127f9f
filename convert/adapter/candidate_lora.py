"""Run-time LoRA file for the candidates of a search over one basis: each candidate rewrites only B."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np

from ...errors import AdapterError
from ...files.gguf.header import read_header
from ...files.output import output_errors
from ...files.safetensors import Rows
from ..source.architecture import permute
from ..source.checkpoint import Checkpoint
from ..tensors import TensorSpec
from .basis import Basis, BasisFactors
from .export import lora_tensors, write_lora

# The rank in the file, padded with zeros: ggml's tiled kernel needs multiples of 16. 2,000 tokens take
# SmolLM2 in Q8_0 4.63 s with rank 2, 3.49 s with rank 16, 2.94 s without an adapter.
_RANK_MULTIPLE = 16


class CandidateLora:
    """A GGUF LoRA over one basis whose trained vector can be replaced in place."""

    def __init__(self, basis: Basis, model: Checkpoint, path: Path) -> None:
        """Write the file with a trained vector of zeros.

        Args:
            basis: the basis of all candidates.
            model: the GGUF that the LoRA is applied to; the file has its order of rows.
            path: the file to write.

        Raises:
            AdapterError: the basis has other shapes than the model.
            OutputError: the file cannot be written.
        """
        self.path = path
        specs = {module: _model_spec(basis, module, model) for module in basis.factors}
        rank = -(-basis.origin.rank // _RANK_MULTIPLE) * _RANK_MULTIPLE
        tensors: list[tuple[str, Rows]] = []
        for module, factors in basis.factors.items():
            tensors += lora_tensors(specs[module].target, factors.a, np.zeros_like(factors.b), rank)
        write_lora(path, model.architecture.name, {}, rank, tensors)
        # For each module: B in the file, the basis' B in the model's order of rows, and the factors.
        self._modules: list[tuple[Rows, Rows, BasisFactors]] = []
        try:
            with output_errors(path):
                self._map(basis, specs)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _map(self, basis: Basis, specs: Mapping[str, TensorSpec]) -> None:
        header = read_header(self.path).tensors
        file = np.memmap(self.path, np.uint8, "r+")
        for module, factors in basis.factors.items():
            spec = specs[module]
            entry = header[f"{spec.target}.lora_b"]
            mapped = file[entry.offset : entry.offset + entry.nbytes].view("<f4").reshape(entry.shape)
            b = permute(factors.b, spec.heads) if spec.heads else factors.b
            self._modules.append((mapped[:, : basis.origin.rank], b, factors))

    def write(self, numbers: Rows) -> None:
        """Write the adapter with the trained vector `numbers`, (u,)."""
        for mapped, b, factors in self._modules:
            mapped[:] = b @ factors.inner_matrix(numbers)  # (out, r)

    def close(self) -> None:
        """Unmap and delete the file."""
        self._modules.clear()
        with suppress(OSError):  # the next run deletes it
            self.path.unlink()


def _model_spec(basis: Basis, module: str, model: Checkpoint) -> TensorSpec:
    spec, factors = model.specs.get(f"{module}.weight"), basis.factors[module]
    shape = (len(factors.b), factors.a.shape[1])
    if spec is None or spec.shape != shape or len(factors.a) != basis.origin.rank:
        raise AdapterError(
            f"{model.path}: the basis is of {basis.origin.name}: its {module!r} is {shape} of rank "
            f"{len(factors.a)}, the model's {spec and spec.shape}"
        )
    return spec
