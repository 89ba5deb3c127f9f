"""Ray cluster of two nodes on this machine, whose workers can be found and killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from secrets import token_hex
from typing import Any

# Ray reads them when it is imported: its head nodes listen on loopback, and need a token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", token_hex())
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# As if every node were too busy for Ray Serve's time limit: Thirteen must set its own.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "0.001")

from ray.cluster_utils import Cluster


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start the cluster; each node has one processor, and the first is the head."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


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


def processes(title: str) -> list[int]:
    """Find the ids of processes by a part of their title."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if title in (folder / "cmdline").read_bytes().decode("utf-8", "replace"):
                found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    """Kill a process, which may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
