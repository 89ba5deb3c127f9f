"""Proof that another library computes a file as llama.cpp does, in a process of its own, once for each file.

A fast library may round otherwise, leave out parts of an adapter without a word, or abort on a processor. So
before one is used, a process compares what both compute; see library_proof_worker.py.
"""

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from ...errors import FileError, ThirteenError
from ...files.atomic_write import write_file
from ...files.cache_folder import cache_dir
from ...files.processors import processor_name
from ...files.trusted_files import FileState
from ..native.ik_llama_library import PACKAGE
from .load_probe import WORKER, last_reply, run_worker, signal_name

_WALL_S, _BYTES_PER_S = 120, 2_000_000
_PROGRAM = WORKER.format("runtime.llama.library_proof_worker")


def prove_library(library: str, model: Path, adapters: Sequence[Path], threads: int) -> str:
    """Compare a library with llama.cpp on a file and its adapters, unless that has been done.

    Args:
        library: one of LIBRARIES.
        model: a GGUF file.
        adapters: LoRAs for it in GGUF files.
        threads: threads that compute.

    Returns:
        Why the library is not used for the files; empty if it computes them as llama.cpp does.

    Raises:
        FileError: a file cannot be examined, or the process cannot be started, or was told to end.
    """
    try:
        states = [FileState.now(path) for path in (model, *adapters)]
    except OSError as error:
        raise FileError(f"{error.filename or model}: {error.strerror or error}") from None
    key = {
        "library": f"{library} {version(PACKAGE)}",
        "llama_cpp_python": version("llama-cpp-python"),
        "processor": processor_name(),
        "model": str(model),
        "files": [state.stamp for state in states],
    }
    record = cache_dir() / f"proof-{sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        return str(json.loads(record.read_bytes())["problem"])
    problem = _compare_elsewhere(library, [state.path for state in states], threads)
    with suppress(ThirteenError):  # else it is compared again
        write_file(record, json.dumps(key | {"problem": problem}, indent=1).encode() + b"\n")
    return problem


def failed_proofs() -> Iterator[str]:
    """A line about each file on which another library failed."""
    for record in sorted(cache_dir().glob("proof-*.json")):
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(record.read_bytes())
            if found["problem"]:
                yield f"{found['library']} is not used for {found['model']}: {found['problem']}"


def require_proof(library: str, model: Path, adapters: Sequence[Path], threads: int) -> None:
    """As prove_library(), for a library that shall be used.

    Raises:
        FileError: also where it does not compute the files as llama.cpp does.
    """
    if problem := prove_library(library, model, adapters, threads):
        raise FileError(f"{model}: library {library} cannot be used: {problem}; use llama.cpp")


def _compare_elsewhere(library: str, files: Sequence[Path], threads: int) -> str:
    wall_s = _WALL_S + sum(path.stat().st_size for path in files) // _BYTES_PER_S
    try:
        done = run_worker(_PROGRAM, library, threads, *files, timeout=wall_s)
    except subprocess.TimeoutExpired:
        return f"a comparison with llama.cpp takes more than {wall_s} seconds"
    except OSError as error:
        raise FileError(f"{files[0]}: a comparison cannot be started: {error}") from None
    reply = last_reply(done.stdout)
    if done.returncode == -signal.SIGTERM:  # a service is being stopped: that says nothing of the file
        raise FileError(f"{files[0]}: a comparison with llama.cpp was ended by SIGTERM")
    if done.returncode < 0:
        return f"a comparison with llama.cpp ended with {signal_name(-done.returncode)}"
    return str(reply.get("problem", f"a comparison with llama.cpp failed with exit status {done.returncode}"))
