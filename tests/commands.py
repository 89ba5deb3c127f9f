"""Runs command lines, each in a forked process: as quick as a call, and a crash is only an exit status.

The parent process is this file, run as a script. It never computes anything, or the native threads of its
children would hang.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

TIME_LIMIT_S = 60


@dataclass(frozen=True)
class CommandResult:
    """Exit status and output of a command; a negative status is the signal that killed it."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Standard output of a command that succeeded."""
        assert self.status == 0, self
        return self.stdout

    @property
    def json(self) -> Any:
        """What a command that succeeded printed with --json."""
        return json.loads(self.output)

    @property
    def error(self) -> str:
        """The only line of a command that refused its input."""
        assert (self.status, self.stdout, self.stderr.count("\n")) == (2, "", 1), self
        assert self.stderr.startswith("error: "), self
        return self.stderr


class Commands:
    """Runs command lines, one after the other."""

    def __init__(self, module: str = "thirteen.cli.main") -> None:
        """Take the module whose function `main` runs a command line; by default that of `thirteen`."""
        self._module = module

    def __enter__(self) -> Self:
        self._forker = subprocess.Popen(
            [sys.executable, __file__, self._module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._forker.communicate()

    def __call__(self, *argv: object, stdin: bytes = b"", file_limit: int | None = None) -> CommandResult:
        """Run `thirteen` with these arguments; files that it writes are limited to `file_limit` bytes."""
        job = {
            "argv": [str(argument) for argument in argv],
            "stdin": stdin.decode("latin-1"),
            "file_limit": file_limit,
        }
        assert self._forker.stdin and self._forker.stdout
        self._forker.stdin.write(json.dumps(job) + "\n")
        self._forker.stdin.flush()
        return CommandResult(**json.loads(self._forker.stdout.readline()))


def _run_child(main: Callable[[], None], job: dict[str, Any], streams: list[int]) -> int:
    import resource
    import signal
    import traceback

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    signal.alarm(TIME_LIMIT_S)
    if job["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"],) * 2)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, "r" if n == 0 else "w", encoding="utf-8", closefd=False) for n in range(3)
    )
    sys.argv = ["thirteen", *job["argv"]]
    status = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _serve() -> None:
    os.environ["GGML_NO_BACKTRACE"] = "1"  # otherwise each abort starts a debugger, which takes seconds
    run = import_module(sys.argv[1]).main
    import thirteen.convert.convert
    import thirteen.models.base
    import thirteen.runtime.engine.engine  # noqa: F401 - loaded once for all children
    from thirteen.cli.main import main

    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), suppress(SystemExit):
        sys.argv = ["thirteen", "models", os.devnull]  # loads what the command line imports late
        main()
    for line in sys.stdin:
        print(json.dumps(_run_forked(run, json.loads(line))), flush=True)


def _run_forked(main: Callable[[], None], job: dict[str, Any]) -> dict[str, int | str]:
    with ExitStack() as stack:
        stdin, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        stdin.write(job["stdin"].encode("latin-1"))
        stdin.seek(0)
        if (child := os.fork()) == 0:
            try:
                os._exit(_run_child(main, job, [stdin.fileno(), stdout.fileno(), stderr.fileno()]))
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        stdout.seek(0)
        stderr.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "stdout": stdout.read().decode("utf-8", "replace"),
            "stderr": stderr.read().decode("utf-8", "replace"),
        }


if __name__ == "__main__":
    _serve()
