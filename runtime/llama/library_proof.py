"""Proof that another library computes a file as llama.cpp does, in a process of its own, once for each file.

What differs or aborts lasts. What another time may not have, such as too little memory, holds for an hour.

A fast library may round otherwise, leave out parts of an adapter without a word, or abort on a processor. So
before one is used, a process compares what both compute; see library_proof_worker.py.
"""

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Any

from ...errors import FileError, ThirteenError
from ...files.atomic_write import write_file
from ...files.cache_folder import cache_dir, record_file
from ...files.processors import processor_name
from ...files.trusted_files import FileState
from ..native.settings import Settings, library_version
from .load_probe import WORKER, last_reply, run_worker, signal_name

_WALL_S, _BYTES_PER_S = 120, 2_000_000
_AGAIN_S = 3600
_PROGRAM = WORKER.format("runtime.llama.library_proof_worker")


def prove_library(settings: Settings, model: Path, adapters: Sequence[Path]) -> str:
    """Compare a library with llama.cpp on a file and its adapters, unless that has been done.

    Args:
        settings: what computes, with how many threads, and whether it repacks weights.
        model: a GGUF file.
        adapters: LoRAs for it in GGUF files.

    Returns:
        Why the library is not used for the files; empty if it computes them as llama.cpp does.

    Raises:
        FileError: a file cannot be examined, or the process was told to end.
    """
    try:
        states = [FileState.now(path) for path in (model, *adapters)]
    except OSError as error:
        raise FileError(f"{error.filename or model}: {error.strerror or error}") from None
    key: dict[str, Any] = {
        "library": f"{settings.library} {library_version(settings.library)}",
        "llama_cpp_python": version("llama-cpp-python"),
        "processor": processor_name(),
        "model": str(model),
        "files": [state.stamp for state in states],
    }
    if not settings.repack:
        key["repack"] = False
    record = record_file("proof", key)
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads(record.read_bytes())
        if not found.get("again") or abs(time() - record.stat().st_mtime) < _AGAIN_S:
            return str(found["problem"])
    problem, again = _compare_elsewhere(settings, [state.path for state in states])
    problem += "; it is tried again after an hour" if again else ""
    with suppress(ThirteenError):  # else it is compared again
        found = key | {"problem": problem, "again": again}
        write_file(record, json.dumps(found, indent=1).encode() + b"\n")
    return problem


def failed_proofs() -> Iterator[str]:
    """A line about each file on which another library failed."""
    for record in sorted(cache_dir().glob("proof-*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(record.read_bytes())
            if found["problem"]:
                yield f"{found['library']} is not used for {found['model']}: {found['problem']}"


def require_proof(settings: Settings, model: Path, adapters: Sequence[Path]) -> None:
    """As prove_library(), for a library that shall be used.

    Raises:
        FileError: also where it does not compute the files as llama.cpp does.
    """
    if problem := prove_library(settings, model, adapters):
        raise FileError(f"{model}: library {settings.library} cannot be used: {problem}; use llama.cpp")


def _compare_elsewhere(settings: Settings, files: Sequence[Path]) -> tuple[str, bool]:
    """The problem, if any, and whether to try again later."""
    what = "a comparison with llama.cpp"
    wall_s = _WALL_S + sum(path.stat().st_size for path in files) // _BYTES_PER_S
    try:
        how = (settings.library, settings.threads, int(settings.repack))
        done = run_worker(_PROGRAM, *how, *files, timeout=wall_s)
    except subprocess.TimeoutExpired:
        return f"{what} takes more than {wall_s} seconds", True
    except OSError as error:
        return f"{what} cannot be started: {error}", True
    status, reply = done.returncode, last_reply(done.stdout)
    if status == -signal.SIGTERM:  # a service is being stopped: that says nothing of the file
        raise FileError(f"{files[0]}: {what} was ended by SIGTERM")
    if status < 0:  # the system kills a process where memory is short
        return f"{what} ended with {signal_name(-status)}", -status == signal.SIGKILL
    if "problem" not in reply:
        return f"{what} failed with exit status {status}", True
    return str(reply["problem"]), bool(reply["again"])
