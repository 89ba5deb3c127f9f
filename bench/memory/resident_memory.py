"""What of a process' memory is resident, and what it is for, as Linux tells in /proc/self."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Resident:
    """What of a process is in memory now.

    Attributes:
        rss_bytes: all of its pages that are.
        pss_bytes: the proportional set size: pages that several processes share count in parts.
        anonymous_bytes: its own pages, which are no file's.
    """

    rss_bytes: int
    pss_bytes: int
    anonymous_bytes: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a loaded model holds after some work; the five parts come to rss_bytes.

    Attributes:
        rss_bytes: see Resident.
        pss_bytes: likewise.
        program_bytes: resident before the load: Python, NumPy, llama.cpp.
        mapped_bytes: pages of the model's file that were touched. The system can drop and read them again.
        copied_bytes: by how much loading the model alone made the process' own pages grow: weights laid out
            anew for this processor, and the vocabulary.
        kv_bytes: keys and values, from the model's shapes and the room that was set aside.
        other_bytes: the rest: buffers of the computation, adapters, what Python keeps. Below zero where the
            system took back pages of the program.
    """

    rss_bytes: int
    pss_bytes: int
    program_bytes: int
    mapped_bytes: int
    copied_bytes: int
    kv_bytes: int
    other_bytes: int


def resident(proc: Path = _PROC) -> Resident | None:
    """What is resident now; None where the system does not tell."""
    try:
        kib = dict(_sizes((proc / "smaps_rollup").read_text("utf-8")))
        return Resident(*(kib[name] << 10 for name in ("Rss", "Pss", "Anonymous")))
    except (OSError, KeyError):
        return None


def mapped_bytes(path: Path, proc: Path = _PROC) -> int:
    """How much of a file is resident in the mappings of this process."""
    found, inside = 0, False
    for line in (proc / "smaps").read_text("utf-8", "surrogateescape").splitlines():
        if line.split(" ", 1)[0].endswith(":"):
            found += int(line.split()[1]) << 10 if inside and line.startswith("Rss:") else 0
        else:  # "7f00-7f01 r--p 0000 08:01 42    /the/file"
            inside = line.partition("/")[1:] == ("/", str(path.resolve())[1:])
    return found


def _sizes(text: str) -> Iterator[tuple[str, int]]:
    """The lines that are a name and KiB."""
    for line in text.splitlines():
        match line.split():
            case [name, number, "kB"]:
                yield name.removesuffix(":"), int(number)


def footprint(before: Resident, after: Resident, mapped: int, copied: int, kv: int) -> Footprint:
    """Split what is resident after the work, given what was before the load."""
    known = before.rss_bytes + mapped + copied + kv
    return Footprint(
        rss_bytes=after.rss_bytes,
        pss_bytes=after.pss_bytes,
        program_bytes=before.rss_bytes,
        mapped_bytes=mapped,
        copied_bytes=copied,
        kv_bytes=kv,
        other_bytes=after.rss_bytes - known,
    )
