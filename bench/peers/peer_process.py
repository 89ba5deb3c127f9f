"""A peer in a process of its own, which survives its crashes and shares no memory or threads with the others.

The worker prints a line of JSON when the peer is loaded, and one for each round that it reads from standard
input.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any

from ...errors import RequestError, ThirteenError
from ...files.gguf.header import Header, read_header
from ..harness.isolated import module_process
from ..harness.system_memory import peak_rss_bytes
from .llama_bench import LlamaBenchPeer
from .llama_cpp_python import SETTINGS as LLAMA_CPP_PYTHON_SETTINGS
from .llama_cpp_python import LlamaCppPythonPeer
from .llama_server import LlamaServerPeer
from .peer import TIMEOUT_S, Peer, PeerWorkload, Speeds
from .thirteen import ThirteenPeer

_END_S = 5

Loader = Callable[[Header, PeerWorkload], Peer]


@dataclass(frozen=True, slots=True)
class Program:
    """A program to compare with.

    Attributes:
        missing: why it cannot be loaded; None if it can.
        rows: how it is loaded for each of its rows: with its own defaults, and with other options, which are
            in the row's name.
        worker: module or script whose run_worker() loads it, and arguments before those of PeerProcess.
    """

    missing: Callable[[], str | None]
    rows: Mapping[str, Loader]
    worker: Sequence[str] = (__name__,)


def _missing_command(name: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else "it is not on PATH"


OWN = "thirteen"
PROGRAMS: Mapping[str, Program] = {
    OWN: Program(lambda: None, {OWN: ThirteenPeer}),
    "llama-bench": Program(
        _missing_command("llama-bench"),
        {"llama-bench": LlamaBenchPeer, "llama-bench -fa 1": partial(LlamaBenchPeer, flash=True)},
    ),
    "llama-cpp-python": Program(
        lambda: None,
        {
            "llama-cpp-python": LlamaCppPythonPeer,
            **{
                f"llama-cpp-python {name}": partial(LlamaCppPythonPeer, **setting)
                for name, setting in LLAMA_CPP_PYTHON_SETTINGS.items()
            },
        },
    ),
    "llama-server": Program(
        _missing_command("llama-server"),
        {
            "llama-server": LlamaServerPeer,
            "llama-server --flash-attn off": partial(LlamaServerPeer, options=("--flash-attn", "off")),
        },
    ),
}


class PeerProcess:
    """A row of a program in a process of its own."""

    def __init__(self, name: str, worker: Sequence[str], model: Path, workload: PeerWorkload) -> None:
        """Start the process and load the peer.

        Args:
            name: the row.
            worker: that of its program.
            model: a GGUF file.
            workload: the work of one round.

        Raises:
            RequestError: the peer fails.
        """
        self.name = name
        module, *arguments = worker
        command, variables = module_process(
            module, [*arguments, name, str(model), json.dumps(asdict(workload))]
        )
        self._process = subprocess.Popen(  # noqa: S603 - the worker of a program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            start_new_session=True,
        )
        try:
            loaded = self._read()
        except BaseException:
            self.close()
            raise
        self.version: str = loaded["version"]
        self.load_s: float | None = loaded["load_s"]
        self.peak_rss_bytes: int | None = None

    def close(self) -> None:
        """End the process, and the processes that it started.

        It ends by itself at the end of its input, unless it hangs.
        """
        assert self._process.stdin and self._process.stdout, "they are pipes"
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._kill()
        self._process.wait()
        self._process.stdout.close()

    def _kill(self) -> None:
        if sys.platform == "win32":
            self._process.kill()
        else:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def speeds(self, round_number: int) -> Speeds:
        """Measure a round.

        Raises:
            RequestError: the peer failed, or its process ended.
        """
        assert self._process.stdin, "it is a pipe"
        with suppress(OSError):  # then there is no answer either
            self._process.stdin.write(f"{round_number}\n".encode())
            self._process.stdin.flush()
        answer = self._read()
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return tuple(answer["speeds"])

    def _read(self) -> dict[str, Any]:
        """The next answer of the process, which is killed if it takes too long."""
        timer = Timer(TIMEOUT_S, self._kill)
        timer.start()
        try:
            return self._next_answer()
        finally:
            timer.cancel()

    def _next_answer(self) -> dict[str, Any]:
        assert self._process.stdout, "it is a pipe"
        for line in self._process.stdout:
            with suppress(ValueError):  # a library printed something
                answer = json.loads(line)
                if isinstance(answer, dict):
                    if "error" in answer:
                        raise RequestError(f"{self.name}: {answer['error']}")
                    return answer
        raise RequestError(f"{self.name}: its process ended with status {self._process.wait()}")


def run_worker(arguments: Sequence[str], programs: Mapping[str, Program] = PROGRAMS) -> int:
    """Load a row of one of the programs and measure the rounds that standard input names.

    Args:
        arguments: name of the row, path of the model, and the workload as JSON.
        programs: the programs.

    Returns:
        The exit status.
    """
    name, model, workload = arguments
    (load,) = (program.rows[name] for program in programs.values() if name in program.rows)
    try:
        start = perf_counter()
        peer = load(read_header(Path(model)), PeerWorkload(**json.loads(workload)))
        _print({"version": peer.version, "load_s": getattr(peer, "load_s", perf_counter() - start)})
        memory: Callable[[], int | None] = getattr(peer, "peak_rss_bytes", peak_rss_bytes)
        with ExitStack() as stack:
            if hasattr(peer, "close"):
                stack.callback(peer.close)
            for line in sys.stdin:
                _print({"speeds": peer.speeds(int(line)), "peak_rss_bytes": memory()})
    except (ThirteenError, ImportError) as error:
        _print({"error": str(error)})
        return 2
    return 0


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(run_worker(sys.argv[1:]))
