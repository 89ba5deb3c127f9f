"""Work in a Python process of its own: what it raises is raised here, and its death is one more error."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ... import errors
from ...errors import ThirteenError

_NOTHING: Mapping[str, str] = MappingProxyType({})


def run_isolated(
    module: str,
    arguments: Sequence[str],
    died: Callable[[int, str], ThirteenError],
    environment: Mapping[str, str] = _NOTHING,
) -> dict[str, Any]:
    """Run a module of ours whose main() ends with print_outcome().

    Args:
        module: its full name.
        arguments: of its command line.
        died: the error for a process that ended without an answer, from its status (a negative one is the
            signal that ended it) and the last line that it printed.
        environment: variables that it has beside ours.

    Returns:
        What it answered.

    Raises:
        ThirteenError: what the module raised.
    """
    # -P: a folder of the caller's must not stand in for a package of ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    # Without the last, ggml's abort() waits for a debugger.
    quick = {**os.environ, **environment, "GGML_NO_BACKTRACE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quick)  # noqa: S603 - ours
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise died(done.returncode, _last_line(done.stderr)) from None
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return said


def print_outcome(work: Callable[[], dict[str, Any]]) -> int:
    """Do the work and print what it returns or raises, as one JSON object.

    Returns:
        The status to end with: 2 after an error, which then stands on standard error as well.
    """
    try:
        print(json.dumps(work()))
    except ThirteenError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
