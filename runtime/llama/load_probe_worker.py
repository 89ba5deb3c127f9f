"""Program of the process that loads files on trial; load_probe.py starts it.

Its arguments are the seconds of processor time and the bytes of address space that it may use, a model, and
adapters of the model. It writes a line of JSON when it begins with a file, and one for an error.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from ...errors import FileError, ThirteenError
from ..machine.resource_limits import limit_address_space, limit_processor_time, lower_limit
from .context import Context, Span
from .gguf_checks import read_model_header
from .model import LoraAdapter, Model
from .settings import Settings

_SETTINGS = Settings(context=1, slots=1, batch=1, threads=1)


def main() -> None:
    """Load the files; the exit status is 2 after an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the process that started this one
    seconds, nbytes = map(int, sys.argv[1:3])
    model, *adapters = map(Path, sys.argv[3:])
    lower_limit("RLIMIT_CORE", 0)
    limit_processor_time(seconds)
    limit_address_space(nbytes)
    try:
        _load(model, adapters)
    except MemoryError:
        _fail(FileError(f"{model}: a trial load needs more than {nbytes:,} bytes of memory"))
    except ThirteenError as error:
        _fail(error)


def _load(path: Path, adapters: list[Path]) -> None:
    _write({"file": str(path)})
    with Model(read_model_header(path), repack=False) as model:
        _decode(model, None)
        for file in adapters:
            _write({"file": str(file)})
            with LoraAdapter(model, file) as adapter:
                _decode(model, adapter)


def _decode(model: Model, adapter: LoraAdapter | None) -> None:
    token, *_ = (*model.tokenize("1", special=False, bos=True), 0)
    with Context(model, _SETTINGS, adapter) as context:
        context.decode([Span(0, 0, (token,), rows=1)])


def _fail(error: ThirteenError) -> None:
    _write({"error": type(error).__name__, "args": error.args})
    sys.exit(2)


def _write(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()
