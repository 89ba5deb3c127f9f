"""Run one of this package's modules in a separate Python process, which survives its errors and crashes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from thirteen import errors
from thirteen.errors import ThirteenError


def run_in_subprocess(
    module: str, arguments: Sequence[str], crash_error: Callable[[int, str], ThirteenError]
) -> dict[str, Any]:
    """Run a module whose main() ends with print_outcome().

    Args:
        module: full name of the module, or path of a script.
        arguments: its command line arguments.
        crash_error: makes the error for a process that ended without a result, from its exit status (negative
            for a signal) and the last line of its standard error.

    Returns:
        The JSON object that the process printed.

    Raises:
        ThirteenError: the error that the module raised, or that of `crash_error`.
    """
    command, variables = module_process(module, arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    try:
        outcome: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise crash_error(done.returncode, (done.stderr.strip().splitlines() or ["no output"])[-1]) from None
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(*outcome["args"])
    return outcome


def module_process(module: str, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment variables of a process that runs a module of this package, or a script."""
    # -P: a folder in the caller's working directory must not shadow a package.
    script = [module] if module.endswith(".py") else ["-m", module]
    command = [sys.executable, "-P", *script, *arguments]
    # GGML_NO_BACKTRACE: else ggml's abort() waits for a debugger. THIRTEEN_UNTRUSTED: a trial load would be
    # part of what is measured.
    return command, {**os.environ, "GGML_NO_BACKTRACE": "1", "THIRTEEN_UNTRUSTED": "never"}


def print_outcome(work: Callable[[], dict[str, Any]]) -> int:
    """Call `work` and print what it returns or raises as one JSON object.

    Returns:
        The exit status: 0, or 2 after an error, which is also printed to standard error.
    """
    try:
        print(json.dumps(work()))
    except ThirteenError as error:
        print(json.dumps({"error": type(error).__name__, "args": error.args}))
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
