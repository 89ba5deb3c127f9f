"""Resident memory of this process and what it is used for, from Linux's /proc/self."""

from dataclasses import dataclass
from pathlib import Path

from ..harness.peak_memory import kib_fields

_PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class ResidentMemory:
    """Resident memory of a process at one time.

    Attributes:
        rss_bytes: resident set size: all resident pages.
        pss_bytes: proportional set size: a page shared by n processes counts 1/n.
        anonymous_bytes: pages that belong to no file.
    """

    rss_bytes: int
    pss_bytes: int
    anonymous_bytes: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Resident memory of a loaded model after an iteration; the last five fields sum to `rss_bytes`.

    Attributes:
        rss_bytes: resident set size.
        pss_bytes: proportional set size.
        program_bytes: resident before the load: Python, NumPy, llama.cpp.
        mapped_bytes: touched pages of the model file. The system can drop them and read them again.
        copied_bytes: growth of anonymous memory when only the model is loaded: weights repacked for this
            processor, and the vocabulary.
        kv_bytes: the KV cache, computed from the model's shapes and the profile.
        other_bytes: the rest: compute buffers, adapters, Python objects. Negative where the system reclaimed
            pages of the program.
    """

    rss_bytes: int
    pss_bytes: int
    program_bytes: int
    mapped_bytes: int
    copied_bytes: int
    kv_bytes: int
    other_bytes: int


def read_resident_memory(proc: Path = _PROC) -> ResidentMemory | None:
    """Read the current resident memory; None where the system does not report it."""
    try:
        kib = dict(kib_fields((proc / "smaps_rollup").read_text("utf-8")))
        return ResidentMemory(*(kib[name] << 10 for name in ("Rss", "Pss", "Anonymous")))
    except (OSError, KeyError):
        return None


def resident_file_bytes(path: Path, proc: Path = _PROC) -> int:
    """Count the resident bytes of a file in the mappings of this process."""
    total, in_file = 0, False
    for line in (proc / "smaps").read_text("utf-8", "surrogateescape").splitlines():
        if line.split(" ", 1)[0].endswith(":"):
            total += int(line.split()[1]) << 10 if in_file and line.startswith("Rss:") else 0
        else:  # "7f00-7f01 r--p 0000 08:01 42    /the/file"
            in_file = line.partition("/")[1:] == ("/", str(path.resolve())[1:])
    return total


def split_footprint(
    before: ResidentMemory, after: ResidentMemory, mapped: int, copied: int, kv: int
) -> Footprint:
    """Split the resident memory after an iteration; `before` was read before the load."""
    return Footprint(
        rss_bytes=after.rss_bytes,
        pss_bytes=after.pss_bytes,
        program_bytes=before.rss_bytes,
        mapped_bytes=mapped,
        copied_bytes=copied,
        kv_bytes=kv,
        other_bytes=after.rss_bytes - (before.rss_bytes + mapped + copied + kv),
    )
