"""Findings about this machine and this installation."""

import math
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from packaging.requirements import Requirement

from ..errors import FileError, OutputError, ThirteenError, build_hint, install_hint, one_line
from ..files.cache_folder import REMEDY, cache_dir
from ..files.processors import processor_name, read_cpuinfo, usable_processors
from ..files.progress import Progress, no_progress
from ..models.embedded import find_embedded
from ..runtime.machine.available_memory import available_bytes
from ..runtime.machine.control_groups import ROOT, memory_limits, processor_limits
from ..runtime.machine.threads import default_threads, physical_cores

if TYPE_CHECKING:  # it loads llama.cpp
    from ..bench.peers.speed_check import SpeedCheck

MEMORY_MIN = 1 << 30  # for a model of 600 MB with the profile phone
# For temporary files of a conversion of 1B weights: 4.1 GB to measure the importance; after these are
# gone, 5.6 GB to compare with F16.
DISK_MIN = 6 << 30

# Instruction sets that matter to the speed: flag in /proc/cpuinfo, usual name, name in llama.cpp's builds.
_INSTRUCTION_SETS = (
    ("avx2", "AVX2", "AVX2"),
    ("avx512f", "AVX-512", "AVX512"),
    ("avx512_vnni", "AVX-512 VNNI", "AVX512_VNNI"),
    ("avx512_bf16", "AVX-512 BF16", "AVX512_BF16"),
    ("avx_vnni", "AVX-VNNI", "AVX_VNNI"),
    ("amx_int8", "AMX", "AMX_INT8"),
    ("asimd", "NEON", "NEON"),
    ("asimddp", "dotprod", "DOTPROD"),
    ("i8mm", "i8mm", "MATMUL_INT8"),
)
# Of a build without AVX-512, by docs/figures/speed.md; of the other instruction sets there are no figures.
_AVX512_COST = "it reads prompts at 0.64 to 0.79 of the speed, writes answers at 0.89 to 0.94 (on a Zen 4)"
_OTHER_COST = "it is slower, mostly in reading prompts"
_IK_GAIN = "up to 1.6 times as fast, depending on processor and model (docs/figures/speed.md)"
_PACKAGES = ("thirteen", "llama-cpp-python", "gguf", "numpy")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at.

    Attributes:
        name: what it is.
        value: what was found.
        problem: what is wrong with it and what to do; None if nothing is.
    """

    name: str
    value: str
    problem: str | None = None


def diagnose(speed_of: Path | None = None, progress: Progress = no_progress) -> list[Finding]:
    """Look at this machine and this installation; takes a second, mostly to hash the embedded model.

    Args:
        speed_of: a GGUF file, with which this engine is timed beside plain llama-cpp-python, in about 20 s.
        progress: called while it is timed.

    Raises:
        ThirteenError: the file cannot be run.
    """
    name, flags = processor_name(), read_cpuinfo()[1]
    findings = [
        processor_finding(name, flags),
        *llama_findings(flags),
        cores_finding(),
        memory_finding(available_bytes(), psutil.virtual_memory().total),
        control_group_finding(),
        cache_finding(),
        versions_finding(),
        embedded_finding(),
    ]
    if speed_of is not None:
        from ..bench.peers.speed_check import check_speed  # noqa: PLC0415 - loads llama.cpp

        findings.append(speed_finding(check_speed(speed_of, progress=progress)))
    return findings


def processor_finding(name: str, flags: frozenset[str]) -> Finding:
    """The processor and its instruction sets."""
    known = ", ".join(label for flag, label, _ in _INSTRUCTION_SETS if flag in flags)
    return Finding("processor", f"{name} ({known or platform.machine()})")


def llama_findings(flags: frozenset[str]) -> Iterator[Finding]:
    """The installed build of llama.cpp, and what it finds on this machine."""
    try:
        from ..quality.environment import this_build  # noqa: PLC0415 - each loads the library
        from ..runtime.native.gpu import gpu_found  # noqa: PLC0415
        from ..runtime.native.struct_layouts import check_struct_layouts  # noqa: PLC0415
    except (ImportError, ThirteenError) as error:
        yield Finding("llama.cpp", "cannot be loaded", one_line(error))
        return
    yield build_finding(this_build().llama_cpp_system, flags)
    try:
        check_struct_layouts()
    except FileError as error:
        yield Finding("struct layouts", "unknown", str(error))
    yield library_finding()
    yield Finding("GPU", "found" if gpu_found() else "none, or the build is not made for it")


def build_finding(system_info: str, flags: frozenset[str]) -> Finding:
    """Compare the instruction sets of the build with those of the processor.

    Args:
        system_info: what llama_print_system_info() says.
        flags: the processor's; empty if unknown.
    """
    built = {name for name, value in re.findall(r"(\w+) = (\d+)", system_info) if value != "0"}
    pairs = [(label, flag in flags, name in built) for flag, label, name in _INSTRUCTION_SETS]
    value = ", ".join(label for label, _, in_build in pairs if in_build) or "no special instruction sets"
    unused = [label for label, in_processor, in_build in pairs if in_processor and not in_build]
    lacking = ", ".join(label for label, in_processor, in_build in pairs if in_build and not in_processor)
    remedy = f"compile it for this processor, with a C++ compiler: {build_hint('GGML_NATIVE')}"
    problem = None
    if flags and lacking:
        problem = f"the build of llama.cpp needs {lacking}, which the processor lacks: {remedy}"
    elif unused:
        cost = _AVX512_COST if "AVX-512" in unused else _OTHER_COST
        names = ", ".join(unused)
        problem = f"the build of llama.cpp does not use {names}, which the processor has; {cost}: {remedy}"
    return Finding("llama.cpp", f"built for {value}", problem)


def library_finding() -> Finding:
    """Whether ik_llama.cpp is installed, can be loaded, and computes as llama.cpp does."""
    from ..runtime.llama.library_proof import failed_proofs  # noqa: PLC0415 - loads llama.cpp
    from ..runtime.native.ik_llama_library import KNOWN_VERSION, PACKAGE, installed  # noqa: PLC0415
    from ..runtime.native.libraries import find_library  # noqa: PLC0415

    name = "second library"
    if not installed():
        return Finding(name, f"none; ik_llama.cpp decodes {_IK_GAIN}: {install_hint('ik')}")
    try:
        find_library("ik")
    except FileError as error:
        return Finding(name, "ik_llama.cpp cannot be used", str(error))
    return Finding(name, "; ".join([f"{PACKAGE} {KNOWN_VERSION}, used where it is faster", *failed_proofs()]))


def cores_finding() -> Finding:
    """The cores, and the threads that compute unless another number is measured to be faster."""
    hardware = f"{physical_cores()}, with {usable_processors()} hardware threads"
    return Finding("cores", f"{hardware}; threads: {default_threads()}")


def memory_finding(available: int, total: int) -> Finding:
    """The memory in bytes: what this process can still have, and that of the machine."""
    problem = (
        f"only {_size(available)} of memory is available: end other programs, or use a smaller file "
        "(convert --size) and --profile phone"
    )
    value = f"{_size(available)} available of {_size(total)}"
    return Finding("memory", value, problem if available < MEMORY_MIN else None)


def control_group_finding(root: Path = ROOT) -> Finding:
    """The limits of the control groups, as in a container.

    Args:
        root: parent of the /proc and /sys that describe the groups.
    """
    memory = min((limit for limit, _ in memory_limits(root)), default=None)
    processors = min(processor_limits(root), default=math.inf)
    limits = [] if memory is None else [f"{_size(memory)} of memory"]
    if processors < math.inf:
        limits.append(f"{processors:g} processors")
    return Finding("control groups", ", ".join(limits) or "no limits")


def cache_finding() -> Finding:
    """The cache folder, its size, and the space that is free there."""
    try:
        folder = cache_dir()
        with tempfile.TemporaryFile(dir=folder):
            pass
        sizes = list(_file_sizes(folder))
        free = shutil.disk_usage(folder).free
    except (OSError, OutputError) as error:
        remedy = "" if isinstance(error, OutputError) else f"; {REMEDY}"
        return Finding("cache", "not usable", f"the cache folder cannot be used: {error}{remedy}")
    value = f"{folder}, {_size(sum(sizes))} in {len(sizes):,} files; {_size(free)} free on its disk"
    problem = f"only {_size(free)} is free on the disk of {folder}: delete files, or set THIRTEEN_CACHE"
    return Finding("cache", value, problem if free < DISK_MIN else None)


def _file_sizes(folder: Path) -> Iterator[int]:
    """Bytes of each file below a folder; other processes may remove files and folders meanwhile."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path.stat().st_size


def versions_finding() -> Finding:
    """The versions of Python and the main packages, and whether all required packages are there."""
    value = f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {_version(name) or 'missing'}" for name in _PACKAGES
    )
    unmet = [f"'{one}'" for one in _requirements() if not _is_met(one)]
    problem = f"not installed in a version that fits: pip install {' '.join(unmet)}"
    return Finding("versions", value, problem if unmet else None)


def embedded_finding() -> Finding:
    """The embedded model; its hash is checked."""
    with suppress(OutputError):  # see cache_finding()
        if path := find_embedded():
            value = f"{path.name}, {_size(path.stat().st_size)}, with the right hash"
            return Finding("embedded model", value)
    return Finding("embedded model", "downloaded on first use")


def speed_finding(check: "SpeedCheck") -> Finding:
    """The speed of this engine beside plain llama-cpp-python."""
    problem = (
        f"this engine has {check.ratio:.2f} of the speed of plain llama-cpp-python: close other programs and "
        "repeat"
    )
    return Finding("speed", check.text, problem if check.too_slow else None)


def _requirements() -> Iterator[Requirement]:
    """Requirements of the project on this system, without its extras: commands that need one tell."""
    for one in map(Requirement, requires("thirteen") or []):
        if not one.marker or one.marker.evaluate({"extra": ""}):
            one.marker = None  # it is not for the reader
            yield one


def _is_met(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
