"""`thirteen serve` on a cluster, and workers that can be found and killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any

import psutil


@contextmanager
def serving(*words: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run `thirteen serve` from when it serves until the block ends."""
    command = [sys.executable, "-m", "thirteen", "serve", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stderr
            lines = list(takewhile(lambda line: not line.startswith("serving "), process.stderr))
            assert process.poll() is None, lines
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def processes(title: str) -> set[int]:
    """Find the ids of processes by a part of their title."""
    found = psutil.process_iter(["cmdline"])
    return {process.pid for process in found if title in " ".join(process.info["cmdline"] or ())}


def kill(pid: int) -> None:
    """Kill a process, which may have ended."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
