"""Trial load: a file that this project did not write is first loaded in another process, with limits.

llama.cpp ends the process on errors that it does not expect. The checks of gguf_checks.py refuse those
that are known. What they miss ends the other process, and is one line here. Where they do not look at every
value, that process does all that an engine would do.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ... import errors
from ...errors import FileError
from ...files.trusted_files import FileState, untrusted_by_default

# Limits of the other process: for any file, and for each byte. The wall time allows for the slowest disks,
# the processor's for the trial of all ways to compute.
_WALL_S, _WALL_BYTES_PER_S = 60, 5_000_000
_PROCESSOR_S, _PROCESSOR_BYTES_PER_S = 20, 10_000_000
_ADDRESS_BYTES, _ADDRESS_FACTOR = 2_000_000_000, 2
WORKER = """
from thirteen.files.lazy_package import import_lazily
import_lazily()
from thirteen.{} import main
main()
"""
_PROGRAM = WORKER.format("runtime.llama.load_probe_worker")
# GGML_NO_BACKTRACE: else ggml's abort() waits for a debugger. The threads of OpenMP and BLAS would only take
# time and address space.
_ALONE = {"GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_HINT = "THIRTEEN_UNTRUSTED=never turns trial loads off"


def probe_model_files(model: Path, adapters: Iterable[Path] = (), *, untrusted: bool | None = None) -> None:
    """Load files in another process, and decode a token, unless they are trusted.

    A file that passes is recorded, and not tried again while its bytes stay the same.

    Args:
        model: a GGUF file.
        adapters: LoRAs for it in GGUF files.
        untrusted: whether to try all files, or none; by default those without a record, see
            files/trusted_files.py, unless the environment variable THIRTEEN_UNTRUSTED is set.

    Raises:
        FileError: a file ended the process, or exceeded its limits. The message names file and signal.
        ThirteenError: Model(), LoraAdapter() or Context() raised it there.
    """
    untrusted = untrusted_by_default() if untrusted is None else untrusted
    if untrusted is False:
        return
    try:
        base, *loras = (FileState.now(path) for path in (model, *adapters))
        tried = [lora for lora in loras if untrusted or not lora.trusted]
        if untrusted or tried or not base.trusted:
            _load_elsewhere([base.path, *(lora.path for lora in tried)])
            for file in (base, *tried):
                file.trust()
    except OSError as error:
        raise FileError(f"{error.filename or model}: {error.strerror or error}") from None


def _load_elsewhere(files: Sequence[Path]) -> None:
    """Load a model and its adapters in another process."""
    nbytes = sum(path.stat().st_size for path in files)
    wall_s = _WALL_S + nbytes // _WALL_BYTES_PER_S
    limits = (_PROCESSOR_S + nbytes // _PROCESSOR_BYTES_PER_S, _ADDRESS_BYTES + nbytes * _ADDRESS_FACTOR)
    try:
        done = run_worker(_PROGRAM, *limits, *files, timeout=wall_s, **_ALONE)
    except subprocess.TimeoutExpired as expired:
        file = last_reply(expired.stdout).get("file", files[0])
        raise FileError(f"{file}: a trial load takes more than {wall_s} seconds") from None
    except OSError as error:
        raise FileError(f"{files[0]}: a trial load cannot be started: {error}; {_HINT}") from None
    if done.returncode:
        raise _failure(done.returncode, last_reply(done.stdout), files[0])


def run_worker(
    program: str, *arguments: object, timeout: float, **variables: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run a program like WORKER in a process of its own, which writes lines of JSON; see subprocess.run()."""
    return subprocess.run(  # noqa: S603 - own program
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        timeout=timeout,
        check=False,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
    )


def last_reply(output: bytes | None) -> dict[str, Any]:
    """The last line of JSON that another process wrote; empty without one."""
    reply: dict[str, Any] = {}
    for line in (output or b"").splitlines():
        with suppress(ValueError):
            reply = json.loads(line)
    return reply


def _failure(status: int, reply: dict[str, str], model: Path) -> errors.ThirteenError:
    if "error" in reply:
        error: errors.ThirteenError = getattr(errors, reply["error"])(*reply["args"])
        return error
    file = reply.get("file", model)
    if status > 0:
        return FileError(f"{file}: a trial load failed with exit status {status}; {_HINT}")
    return FileError(
        f"{file}: a trial load ended with {signal_name(-status)}: the file is damaged or harmful"
    )


def signal_name(number: int) -> str:
    """Name of a signal; a real-time signal has none."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
