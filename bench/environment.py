"""What every benchmark reports: machine, build and files of the run, its finding, and a table.

Figures are only comparable where machine, build and files agree.
"""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import rich.table
from rich.console import Group
from rich.text import Text

from ..files.gguf.header import read_header
from ..files.processors import processor_name, read_cpuinfo
from ..files.received_files import file_sha256
from ..runtime.llama.llama_cpp_library import llama_cpp
from ..runtime.machine import physical_cores

# Instruction sets for which ggml has kernels, by their names in Linux.
_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_vbmi", "avx512_bf16"),
    *("amx_int8", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
_TABLE_WIDTH = 76  # wide enough for most lines of a caption


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a run; `features` are read on Linux only, and the load is the last minute's mean."""

    cpu: str
    features: tuple[str, ...]
    cores: int  # physical ones that this process may use
    memory_bytes: int
    load_average: float | None
    system: str


@dataclass(frozen=True, slots=True)
class Build:
    """Versions of the software, and the features for which llama.cpp was compiled."""

    thirteen: str
    llama_cpp_python: str
    llama_cpp_system: str


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a measurement; `notes` are lines below it, and no row is longer than the header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __rich__(self) -> rich.table.Table:
        first, *others = self.header
        title, caption = Text(self.title), Text("\n".join(self.notes))
        table = rich.table.Table(
            first, title=title, caption=caption, caption_justify="left", min_width=_TABLE_WIDTH
        )
        for column in others:
            table.add_column(column, justify="right")
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """A measurement: its start in UTC as ISO 8601, where it ran, and what was found, in sentences.

    Each kind of measurement has its own sentences() and table().
    """

    date: str
    machine: Machine
    build: Build
    verdict: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", self.verdict or tuple(self.sentences()))

    def __rich__(self) -> Group:
        return Group(*map(Text, self.verdict), self.table())

    def sentences(self) -> Iterable[str]:
        """What was found; the first sentence is the finding in plain words."""
        return ()

    def table(self) -> Table:
        """All figures, with where they were measured."""
        raise NotImplementedError

    def environment(self, threads: int) -> str:
        """Describe threads, load, processor and build in two lines, for the caption of a table."""
        machine = self.machine
        return (
            f"threads: {threads}, cores: {machine.cores}, load: {machine.load_average}\n"
            f"{machine.cpu} ({' '.join(machine.features)}), llama-cpp-python {self.build.llama_cpp_python}"
        )


def report_head() -> dict[str, Any]:
    """The first fields of BenchReport. Call it before measuring: that itself raises the load average."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "machine": this_machine(), "build": this_build()}


def this_machine() -> Machine:
    """Describe the machine of this process."""
    _, flags = read_cpuinfo()
    return Machine(
        cpu=processor_name(),
        features=tuple(name for name in _FEATURES if name in flags),
        cores=physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=platform.platform(),
    )


def this_build() -> Build:
    """Describe this installation."""
    system = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    return Build(version("thirteen"), version("llama-cpp-python"), system.strip(" |\n"))


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file, and the adapter that is applied to it at run time."""

    model: Path
    adapter: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a report records of a ModelSource; `total_bytes` are those of model file and adapter together."""

    path: str
    sha256: str
    bits_per_weight: float
    total_bytes: int
    adapter: str | None = None
    adapter_sha256: str | None = None

    @property
    def name(self) -> str:
        """The names of the files."""
        return " + ".join(Path(path).name for path in (self.path, self.adapter) if path)


def describe_model(source: ModelSource) -> ModelFile:
    """Read the headers of the files and hash them.

    Raises:
        FileError: a file is not a GGUF, or is damaged.
    """
    model, adapter = source.model, source.adapter
    header = read_header(model)
    return ModelFile(
        path=str(model),
        sha256=file_sha256(model),
        bits_per_weight=header.bits_per_weight,
        total_bytes=header.file_bytes + (read_header(adapter).file_bytes if adapter else 0),
        adapter=str(adapter) if adapter else None,
        adapter_sha256=file_sha256(adapter) if adapter else None,
    )
