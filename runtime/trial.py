"""Trial of foreign files: another process loads them and does what an engine does, and may die of it.

llama.cpp ends the process on much that it does not expect in a file. Here that is one line.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from threading import Timer

from ..errors import FileError, as_line
from ..files.trusted_files import file_stamp, is_recorded, is_trusted, record, untrusted_by_default

_NOTICE_S = 2.0
_BYTES_PER_S = 15_000_000  # of processor time, which is a third of the time that a slow disk may need
_ADDRESS_BYTES, _ADDRESS_FACTOR = 2_000_000_000, 2
# ggml's abort() waits for a debugger, if it finds one. More threads would only need address space.
_ALONE = {"GGML_NO_BACKTRACE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ALONE |= {} if os.name == "nt" else {"PATH": os.devnull}
_HINT = "THIRTEEN_UNTRUSTED=never turns trials off"
_SOURCE_FOLDER = re.compile(r"^/\S*/(?=\S+:[0-9]+: )")  # where the library was compiled
_log = logging.getLogger(__name__)


def try_files(
    model: Path,
    adapters: Iterable[Path] = (),
    *,
    untrusted: bool | None = None,
    library: str = "llama.cpp",
    seconds: int = 20,
) -> None:
    """Try a model and its adapters in another process, unless this package wrote them or they have passed.

    `untrusted` tries all files, or none; by default, THIRTEEN_UNTRUSTED decides. The process gets so many
    seconds of processor time beside that of reading the files. FileError: a file cannot be used; it says why.
    """
    untrusted = untrusted_by_default() if untrusted is None else untrusted
    if untrusted is False:
        return
    try:
        stamps = {model: file_stamp(model, library, version("llama-cpp-python"))}
        stamps |= {adapter: file_stamp(adapter, stamps[model]) for adapter in adapters}
    except OSError as error:
        raise FileError(f"{error.filename or model}: {error.strerror or error}") from None
    new = [
        path for path, stamp in stamps.items() if untrusted or not (is_trusted(path) or is_recorded(stamp))
    ]
    if new:
        files = [model, *(path for path in new if path != model)]
        _run(files, library, seconds)
        for path in files:
            record(stamps[path])


def _run(files: Sequence[Path], library: str, seconds: int) -> None:
    nbytes = sum(path.stat().st_size for path in files)
    seconds += nbytes // _BYTES_PER_S
    words = (seconds, _ADDRESS_BYTES + nbytes * _ADDRESS_FACTOR, library, *files)
    notice = Timer(_NOTICE_S, _log.warning, ("trying %s once in a separate process …", files[0].name))
    notice.start()
    try:
        timeout = 3 * seconds
        done = subprocess.run(  # noqa: S603 - own program
            # -P: not the working folder
            [sys.executable, "-P", "-m", "thirteen.runtime.trial_process", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1", **_ALONE},
            timeout=timeout,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows
        )
    except subprocess.TimeoutExpired as expired:
        raise FileError(_reason(files, f"takes more than {timeout} seconds", expired.stderr)) from None
    except OSError as error:
        raise FileError(f"{files[0]}: a trial cannot be started: {error}; {_HINT}") from None
    finally:
        notice.cancel()
    if status := done.returncode:
        end = "" if status == 2 else _ending(status) + (f"; {_HINT}" if status > 0 else "")
        raise FileError(_reason(files, end, done.stderr))


def _reason(files: Sequence[Path], end: str, output: bytes | None) -> str:
    """What the process was doing, how it ended, and why; without `end`, its last line says all."""
    lines = [f"{files[0]}: a trial", *(output or b"").decode("utf-8", "replace").splitlines()]
    lines = [*filter(None, map(as_line, lines))]
    if not end:
        return lines[-1]
    names = tuple(as_line(str(file)) for file in files)
    at = max(at for at, line in enumerate(lines) if line.startswith(names))
    said = lines[at + 1 :]  # an assertion, perhaps before a backtrace, or an exception
    why = next(filter(_SOURCE_FOLDER.match, said), said[-1] if said else "")
    return f"{lines[at]} {end}" + (f": {_SOURCE_FOLDER.sub('', why):.300}" if why else "")


def _ending(status: int) -> str:
    """How a process ended, by its exit status; a real-time signal has no name."""
    if status >= 0:
        return f"failed with exit status {status}"
    known = -status in set(signal.Signals)
    return f"ended with {signal.Signals(-status).name if known else f'signal {-status}'}"
