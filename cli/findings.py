"""What `thirteen doctor` finds out about this machine and this installation."""

import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import psutil

from ..errors import FileError, OutputError, ThirteenError, build_hint, one_line
from ..files.cache_folder import REMEDY, cache_dir
from ..files.processors import processor_name, read_cpuinfo, usable_processors
from ..models.embedded import find_embedded
from ..runtime.machine import available_bytes, default_threads, physical_cores, processor_limits

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
_PACKAGES = ("thirteen", "llama-cpp-python", "gguf", "numpy")


class Finding(NamedTuple):
    """Something that was looked at: its name, what was found, and what is wrong with it and what to do."""

    name: str
    value: str
    problem: str | None = None


def diagnose() -> list[Finding]:
    """Look at this machine and this installation; takes a second, mostly to hash the embedded model."""
    flags = read_cpuinfo()[1]
    return [
        processor_finding(processor_name(), flags),
        *_library_findings(flags),
        memory_finding(available_bytes(), psutil.virtual_memory().total),
        cache_finding(),
        _versions_finding(),
        embedded_finding(),
    ]


def processor_finding(name: str, flags: frozenset[str]) -> Finding:
    """The processor, its instruction sets and cores, and the threads that compute."""
    known = ", ".join(label for flag, label, _ in _INSTRUCTION_SETS if flag in flags)
    limits = "".join(f", limited to {limit:g}" for limit in processor_limits())
    cores = f"{physical_cores()} cores, {usable_processors()} hardware threads{limits}"
    return Finding(
        "processor", f"{name} ({known or platform.machine()}), {cores}; computes with {default_threads()}"
    )


def _library_findings(flags: frozenset[str]) -> Iterator[Finding]:
    """The installed build of llama.cpp, and the second library."""
    try:
        from ..bench.environment import this_build
        from ..runtime.native.libraries import find_library
        from ..runtime.native.llama_cpp_library import gpu_found

        find_library("llama.cpp")
    except (ImportError, ThirteenError) as error:
        yield Finding("llama.cpp", "cannot be used", one_line(error))
        return
    finding = build_finding(this_build().llama_cpp_system, flags)
    yield finding._replace(value=f"{finding.value}; {'a' if gpu_found() else 'no'} GPU")
    yield library_finding()


def build_finding(system_info: str, flags: frozenset[str]) -> Finding:
    """Compare the instruction sets of the build with those of the processor.

    Args:
        system_info: what llama_print_system_info() says.
        flags: the processor's; empty if unknown.
    """
    built = {name for name, value in re.findall(r"(\w+) = (\d+)", system_info) if value != "0"}
    pairs = [(label, flag in flags, name in built) for flag, label, name in _INSTRUCTION_SETS]
    value = ", ".join(label for label, _, in_build in pairs if in_build) or "no special instruction sets"
    unused = ", ".join(label for label, in_processor, in_build in pairs if in_processor and not in_build)
    lacking = ", ".join(label for label, in_processor, in_build in pairs if in_build and not in_processor)
    problem = None
    if flags and lacking:
        problem = f"the build of llama.cpp needs {lacking}, which the processor lacks"
    elif unused:
        problem = f"the build of llama.cpp is slower than it could be: it does not use {unused}"
    remedy = f"; compile it for this processor, with a C++ compiler: {build_hint('GGML_NATIVE')}"
    return Finding("llama.cpp", f"built for {value}", problem and problem + remedy)


def library_finding() -> Finding:
    """Whether ik_llama.cpp is installed, and can be loaded."""
    from ..runtime.native.ik_llama_library import KNOWN_VERSION, PACKAGE, installed
    from ..runtime.native.libraries import find_library

    name = "second library"
    if not installed():
        return Finding(name, f"none; up to 1.6 times as fast with: pip install {PACKAGE}=={KNOWN_VERSION}")
    try:
        find_library("ik")
    except FileError as error:
        return Finding(name, "ik_llama.cpp cannot be used", str(error))
    return Finding(name, f"{PACKAGE} {KNOWN_VERSION}, used where it is faster")


def memory_finding(available: int, total: int) -> Finding:
    """The memory in bytes: what this process can still have, and that of the machine."""
    problem = (
        f"only {_size(available)} of memory is available: end other programs, or use a smaller file "
        "(convert --size) and --profile phone"
    )
    value = f"{_size(available)} available of {_size(total)}"
    return Finding("memory", value, problem if available < MEMORY_MIN else None)


def cache_finding() -> Finding:
    """The cache folder, and the space that is free there."""
    try:
        folder = cache_dir()
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except (OSError, OutputError) as error:
        remedy = "" if isinstance(error, OutputError) else f"; {REMEDY}"
        return Finding("cache", "not usable", f"the cache folder cannot be used: {error}{remedy}")
    problem = f"only {_size(free)} is free on the disk of {folder}: delete files, or set THIRTEEN_CACHE"
    return Finding("cache", f"{folder}, {_size(free)} free", problem if free < DISK_MIN else None)


def _versions_finding() -> Finding:
    packages = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    return Finding("versions", f"Python {platform.python_version()}, {packages}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def embedded_finding() -> Finding:
    """The embedded model; its hash is checked."""
    with suppress(OutputError):  # see cache_finding()
        if path := find_embedded():
            return Finding(
                "embedded model", f"{path.name}, {_size(path.stat().st_size)}, with the right hash"
            )
    return Finding("embedded model", "downloaded on first use")


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
