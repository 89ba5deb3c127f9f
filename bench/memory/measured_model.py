"""One model of a comparison: its file, an optional adapter, load time and memory."""

from dataclasses import dataclass
from pathlib import Path

from ...files.gguf.header import read_header
from ...files.hashing import file_sha256
from ..harness.adapter_file import AdapterFile, describe_adapter
from ..harness.workload import Workload
from .memory import MemoryUse, measure_memory


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A model with its size, load time and memory.

    Attributes:
        path: model file.
        file_bytes: size of that file.
        weights: number of weights in its tensors.
        bits_per_weight: mean over all tensors.
        sha256: hash of the file, in hexadecimal.
        adapter: the run-time adapter; None without one.
        memory: load time and memory, measured in a fresh process.
    """

    path: str
    file_bytes: int
    weights: int
    bits_per_weight: float
    sha256: str
    adapter: AdapterFile | None
    memory: MemoryUse

    @property
    def total_bytes(self) -> int:
        """Size of the model file and the adapter together."""
        return self.file_bytes + (self.adapter.file_bytes if self.adapter else 0)


def measure_model(model: Path, adapter: Path | None, workload: Workload) -> MeasuredModel:
    """Read and hash the files, then measure load time and memory in a fresh process.

    Hashing comes first, so the load finds the files in the page cache.

    Raises:
        ThirteenError: measure_memory() raises it, or a file cannot be read.
    """
    header = read_header(model)
    return MeasuredModel(
        path=str(model),
        file_bytes=header.file_bytes,
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        sha256=file_sha256(model),
        adapter=None if adapter is None else describe_adapter(adapter),
        memory=measure_memory(model, adapter, workload),
    )
