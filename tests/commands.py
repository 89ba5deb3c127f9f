"""Runs command lines, each in a forked process of its own: as quick as a call, and a crash is only a status.

The forking process is a script that has computed nothing: a child's native threads would hang if it had.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

TIME_LIMIT_S = 60


@dataclass(frozen=True)
class Done:
    """How a command ended; a negative status is the signal that killed it."""

    status: int
    stdout: str
    stderr: str


class Commands:
    """Command lines of `thirteen`, run one after the other."""

    def __enter__(self) -> Self:
        self._forker = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._forker.communicate()

    def __call__(self, *argv: object, stdin: bytes = b"", file_limit: int | None = None) -> Done:
        """Run `thirteen` with these arguments; no file that it writes can grow beyond `file_limit` bytes."""
        order = {
            "argv": [str(word) for word in argv],
            "stdin": stdin.decode("latin-1"),
            "file_limit": file_limit,
        }
        self._forker.stdin.write(json.dumps(order) + "\n")
        self._forker.stdin.flush()
        return Done(**json.loads(self._forker.stdout.readline()))


def _child(order: dict[str, Any], streams: list[int]) -> int:
    import resource
    import signal
    import traceback

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    signal.alarm(TIME_LIMIT_S)
    if order["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"],) * 2)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, "r" if n == 0 else "w", encoding="utf-8", closefd=False) for n in range(3)
    )
    sys.argv = ["thirteen", *order["argv"]]
    status = 1
    try:
        from thirteen.cli.main import main

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
    os.environ["GGML_NO_BACKTRACE"] = "1"  # a debugger for each abort would take seconds
    import thirteen.convert.pipeline
    import thirteen.models.fetch
    import thirteen.runtime.engine.engine  # noqa: F401 - loaded once for all children
    from thirteen.cli.main import main

    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), suppress(SystemExit):
        sys.argv = ["thirteen", "inspect", os.devnull]  # what the command line itself loads late
        main()
    for line in sys.stdin:
        order = json.loads(line)
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(order["stdin"].encode("latin-1"))
            given.seek(0)
            if (child := os.fork()) == 0:
                try:
                    os._exit(_child(order, [given.fileno(), out.fileno(), err.fileno()]))
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            for stream in (out, err):
                stream.seek(0)
            texts = {
                "stdout": out.read().decode("utf-8", "replace"),
                "stderr": err.read().decode("utf-8", "replace"),
            }
            print(json.dumps({"status": os.waitstatus_to_exitcode(status), **texts}), flush=True)


if __name__ == "__main__":
    _serve()
