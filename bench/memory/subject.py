"""One side of a comparison: a model file, perhaps with an adapter, and what it takes to have it ready."""

from dataclasses import dataclass
from pathlib import Path

from ...files.gguf_header import read_header
from ...files.hashing import file_sha256
from ..harness.adapter_file import AdapterFile, _describe_adapter
from ..harness.workload import Workload
from .memory import MemoryUse, measure_memory


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and its costs apart from speed.

    Attributes:
        path: the model file.
        file_bytes: its size.
        weights: how many numbers its tensors hold.
        bits_per_weight: mean over all tensors.
        sha256: of the file, in hexadecimal.
        adapter: what is applied at run time; None if nothing is.
        memory: load time and resident memory, in a process of its own.
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
        """What has to be shipped: the model file and the adapter."""
        return self.file_bytes + (self.adapter.file_bytes if self.adapter else 0)


def describe_subject(model: Path, adapter: Path | None, settings: Workload) -> Subject:
    """Read and hash the files, then load them in a process of their own; so the load finds them read lately.

    Raises:
        ThirteenError: they cannot be read or run; see memory.measure().
    """
    header = read_header(model)
    return Subject(
        path=str(model),
        file_bytes=header.file_bytes,
        weights=header.weights,
        bits_per_weight=header.bits_per_weight,
        sha256=file_sha256(model),
        adapter=None if adapter is None else _describe_adapter(adapter),
        memory=measure_memory(model, adapter, settings),
    )
