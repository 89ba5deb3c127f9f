"""Resident memory of this process and what it is used for, on Linux."""

from dataclasses import dataclass
from pathlib import Path

import psutil


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


def read_resident_memory() -> ResidentMemory | None:
    """Read the current resident memory; None where the system does not report it by mapping."""
    if not psutil.LINUX:
        return None
    maps = psutil.Process().memory_maps(grouped=False)
    return ResidentMemory(*(sum(getattr(one, name) for one in maps) for name in ("rss", "pss", "anonymous")))


def resident_file_bytes(path: Path) -> int:
    """Count the resident bytes of a file in the mappings of this process."""
    maps = psutil.Process().memory_maps(grouped=False)
    return sum(one.rss for one in maps if one.path == str(path.resolve()))
