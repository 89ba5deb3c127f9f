"""Another program that keeps a processor busy, as on any machine in use."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def busy_processes(count: int = 1) -> Iterator[None]:
    """Keep `count` processors busy meanwhile, each by a process of its own."""
    command = [sys.executable, "-S", "-E", "-c", "print(flush=True)\nwhile True: pass"]
    with ExitStack() as started:
        for _ in range(count):
            process = started.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - own program
            )
            started.callback(process.kill)
            assert process.stdout, "it is a pipe"
            process.stdout.readline()  # now it is busy
        yield
