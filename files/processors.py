"""The processors that this process may use, and what they are."""

import os
import platform
from pathlib import Path


def usable_processors() -> int:
    """The number of processors in this process's affinity mask; hardware threads count one each."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil  # noqa: PLC0415 - the Makefile runs this file before anything is installed

    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Name of the processor, on Arm Linux of the board; "unknown" if the system does not tell."""
    return read_cpuinfo()[0] or platform.processor() or "unknown"


def read_cpuinfo() -> tuple[str, frozenset[str]]:
    """Name and flags of the processor; both are empty except on Linux."""
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text("utf-8", "replace"))
    except OSError:
        return parse_cpuinfo("")


def multiplies_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself: AVX512-BF16, AMX, Arm's BF16. Known on Linux only."""
    return not read_cpuinfo()[1].isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Parse /proc/cpuinfo; see read_cpuinfo()."""
    pairs = (line.partition(":") for line in text.splitlines())
    fields = {key.strip().lower(): value.strip() for key, _, value in pairs}
    flags = frozenset(fields.get("flags", fields.get("features", "")).split())
    return fields.get("model name", fields.get("model", "")), flags
