"""The machine and the build that a measurement was made with: without them its figures cannot be compared."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import llama_cpp

from ...runtime.threads import physical_cores

_PACKAGE = Path(__file__).parents[2]
# The instruction sets for which ggml has kernels of their own, as Linux names them.
_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_vbmi", "avx512_bf16"),
    *("amx_int8", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a measurement was made.

    Attributes:
        cpu: the processor's name, as the system has it.
        architecture: its instruction set, such as x86_64.
        features: of the instruction sets that ggml has kernels for, those that the processor has; known on
            Linux only, and empty elsewhere.
        cores: physical cores that this process may use.
        memory_bytes: of the whole machine; None where the system does not tell.
        load_average: processes that were running or ready to, over the minute before; None likewise.
        system: the operating system.
        python: the version of Python.
    """

    cpu: str
    architecture: str
    features: tuple[str, ...]
    cores: int
    memory_bytes: int | None
    load_average: float | None
    system: str
    python: str


@dataclass(frozen=True, slots=True)
class Build:
    """What computed: the versions, and what llama.cpp says it was compiled for."""

    thirteen: str
    llama_cpp_python: str
    llama_cpp_system: str


def this_machine() -> Machine:
    """The machine that this process runs on, now."""
    cpu, features = _cpu(_cpuinfo())
    return Machine(
        cpu=cpu or platform.processor() or "unknown",
        architecture=platform.machine(),
        features=features,
        cores=physical_cores(),
        memory_bytes=_memory_bytes(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=platform.platform(),
        python=platform.python_version(),
    )


def this_build() -> Build:
    """The versions of this installation."""
    system = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    return Build(version("thirteen"), version("llama-cpp-python"), system.strip(" |\n"))


def this_commit() -> str | None:
    """The commit of the checkout that this package runs from, with "-dirty" where files are changed.

    Returns:
        None where it is installed from a package, or git is not.
    """
    git = shutil.which("git")
    if git is None or not (_PACKAGE / ".git").exists():
        return None
    command = [git, "-C", str(_PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - git itself
    return done.stdout.strip() or None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""


def _cpu(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Name and features, from Linux's description of the processors; boards with Arm name the board."""
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    said = {key.strip().lower(): value.strip() for key, _, value in pairs}
    flags = set(said.get("flags", said.get("features", "")).split())
    return said.get("model name", said.get("model", "")), tuple(name for name in _FEATURES if name in flags)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
