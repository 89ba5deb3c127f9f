"""Command `thirteen doctor`: what is found out about this machine and this installation."""

import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

import typer

from ..errors import FileError, OutputError, ThirteenError, build_hint, one_line
from . import options
from .application import command
from .console import out, printable, show

PROBLEMS_FOUND = 1
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


@command("doctor")
def doctor(ctx: typer.Context, as_json: options.Json = False) -> None:
    """Check this machine and installation.

    What is wrong comes first, with what to do; the exit status is then 1.
    """
    findings = [*diagnose()]
    problems = [finding.problem for finding in findings if finding.problem]
    if not as_json:
        for line in [f"wrong: {problem}" for problem in problems] or ["Nothing is wrong."]:
            out.print(printable(line), markup=False, soft_wrap=True)
    facts = {"findings": [finding._asdict() for finding in findings]}
    show(as_json, facts, {finding.name: finding.value for finding in findings})
    if problems:
        ctx.exit(PROBLEMS_FOUND)


class Finding(NamedTuple):
    """Something that was looked at: its name, what was found, and what is wrong with it and what to do."""

    name: str
    value: str
    problem: str | None = None


def diagnose() -> Iterator[Finding]:
    """Look at this machine and this installation; takes a second, mostly to hash the embedded model."""
    import psutil

    from ..files.processors import processor_name, read_cpuinfo, usable_processors
    from ..runtime.machine import available_bytes, default_threads, physical_cores, processor_limits

    flags = read_cpuinfo()[1]
    sets = ", ".join(label for flag, label, _ in _INSTRUCTION_SETS if flag in flags) or platform.machine()
    limits = "".join(f", limited to {limit:g}" for limit in processor_limits())
    cores = f"{physical_cores()} cores, {usable_processors()} hardware threads{limits}"
    yield Finding("processor", f"{processor_name()} ({sets}), {cores}; computes with {default_threads()}")
    yield from _library_findings(flags)
    yield memory_finding(available_bytes(), psutil.virtual_memory().total)
    yield cache_finding()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield Finding("versions", f"Python {platform.python_version()}, {packages}")
    yield _embedded_finding()


def _library_findings(flags: frozenset[str]) -> Iterator[Finding]:
    """The installed build of llama.cpp, and the second library."""
    try:
        from ..bench.environment import this_build
        from ..runtime.llama.ik_llama_library import KNOWN_VERSION, PACKAGE, installed
        from ..runtime.llama.llama_cpp_library import gpu_found
        from ..runtime.llama.model import find_library

        find_library("llama.cpp")
    except (ImportError, ThirteenError) as error:
        yield Finding("llama.cpp", "cannot be used", one_line(error))
        return
    finding = build_finding(this_build().llama_cpp_system, flags)
    yield finding._replace(value=f"{finding.value}; {'a' if gpu_found() else 'no'} GPU")
    value, problem = f"none; up to 1.6 times as fast with: pip install {PACKAGE}=={KNOWN_VERSION}", None
    if installed():
        value = "ik_llama.cpp, used where it is faster"
        try:
            find_library("ik")
        except FileError as error:
            value, problem = "ik_llama.cpp cannot be used", str(error)
    yield Finding("second library", value, problem)


def build_finding(system_info: str, flags: frozenset[str]) -> Finding:
    """Compare the instruction sets of the build with those of the processor.

    Args:
        system_info: what llama_print_system_info() says.
        flags: the processor's; empty if unknown.
    """
    names = {name for name, value in re.findall(r"(\w+) = (\d+)", system_info) if value != "0"}
    built = [label for _, label, name in _INSTRUCTION_SETS if name in names]
    there = [label for flag, label, _ in _INSTRUCTION_SETS if flag in flags]
    problem = None
    if flags and (lacking := [label for label in built if label not in there]):
        problem = f"the build of llama.cpp needs {', '.join(lacking)}, which the processor lacks"
    elif unused := [label for label in there if label not in built]:
        problem = f"the build of llama.cpp is slower than it could be: it does not use {', '.join(unused)}"
    remedy = f"; compile it for this processor, with a C++ compiler: {build_hint('GGML_NATIVE')}"
    value = ", ".join(built) or "no special instruction sets"
    return Finding("llama.cpp", f"built for {value}", problem and problem + remedy)


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
    from ..files.cache_folder import REMEDY, cache_dir

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


def _embedded_finding() -> Finding:
    """The embedded model; its hash is checked."""
    from ..models.embedded import find_embedded

    try:
        path = find_embedded()
    except OutputError:  # see cache_finding()
        path = None
    value = f"{path.name}, {_size(path.stat().st_size)}, with the right hash" if path else ""
    return Finding("embedded model", value or "downloaded on first use")


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
