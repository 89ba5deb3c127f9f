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
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any, Self

from ...errors import RequestError, ThirteenError
from ...files.gguf.header import Header, read_header
from ..harness.isolated import module_process
from ..harness.peak_memory import peak_rss_bytes
from .ik_llama import IkLlamaPeer
from .llama_cpp_python import SETTINGS as LLAMA_CPP_PYTHON_SETTINGS
from .llama_cpp_python import LlamaCppPythonPeer
from .llama_server import LlamaServerPeer
from .mistral_rs import MistralRsPeer
from .node_llama_cpp import NodeLlamaCppPeer, installed_package
from .openvino import OpenVinoPeer
from .peer import TIMEOUT_S, Peer, PeerWorkload, Speeds
from .thirteen import ThirteenPeer
from .xllamacpp import XllamacppPeer

_END_S = 5

Loader = Callable[[Header, PeerWorkload], Peer]


@dataclass(frozen=True, slots=True)
class _Program:
    """A program to compare with.

    Attributes:
        missing: why it cannot be loaded; None if it can.
        rows: how it is loaded for each of its rows: with its own defaults, and with other options, which are
            in the row's name.
    """

    missing: Callable[[], str | None]
    rows: Mapping[str, Loader]


def _package(name: str) -> Callable[[], str | None]:
    return lambda: None if find_spec(name) else f"{name} is not installed"


def _llama_server() -> str | None:
    return None if shutil.which("llama-server") else "it is not on PATH"


def _node_llama_cpp() -> str | None:
    return None if installed_package() else "it is not in NODE_PATH or ./node_modules, or node is not on PATH"


_PROGRAMS = {
    "thirteen": _Program(_package("thirteen"), {"thirteen": ThirteenPeer}),
    "llama-cpp-python": _Program(
        _package("llama_cpp"),
        {
            "llama-cpp-python": LlamaCppPythonPeer,
            **{
                f"llama-cpp-python {name}": partial(LlamaCppPythonPeer, **setting)
                for name, setting in LLAMA_CPP_PYTHON_SETTINGS.items()
            },
        },
    ),
    "openvino": _Program(
        _package("openvino_genai"),
        {
            "openvino": OpenVinoPeer,
            "openvino ATTENTION_BACKEND=SDPA": partial(OpenVinoPeer, ATTENTION_BACKEND="SDPA"),
        },
    ),
    "xllamacpp": _Program(
        _package("xllamacpp"),
        {"xllamacpp": XllamacppPeer, "xllamacpp flash_attn=off": partial(XllamacppPeer, flash_attn=False)},
    ),
    "mistralrs": _Program(_package("mistralrs"), {"mistralrs": MistralRsPeer}),
    "node-llama-cpp": _Program(
        _node_llama_cpp,
        {
            "node-llama-cpp": NodeLlamaCppPeer,
            "node-llama-cpp flashAttention=true": partial(NodeLlamaCppPeer, flashAttention=True),
        },
    ),
    "llama-server": _Program(
        _llama_server,
        {
            "llama-server": LlamaServerPeer,
            "llama-server --flash-attn off": lambda model, work: LlamaServerPeer(
                model, work, "--flash-attn", "off"
            ),
        },
    ),
    "ik": _Program(_package("ik_llama_cpp"), {"ik": IkLlamaPeer}),
}
_LOADERS = {row: load for program in _PROGRAMS.values() for row, load in program.rows.items()}
PACKAGES = tuple(name for name in _PROGRAMS if name != ThirteenPeer.name)  # those to compare with


def missing(program: str) -> str | None:
    """Why one of PACKAGES cannot be loaded; None if it can."""
    return _PROGRAMS[program].missing()


def row_names(program: str) -> tuple[str, ...]:
    """Names of the rows of one of PACKAGES: its defaults first, then other options."""
    return tuple(_PROGRAMS[program].rows)


class PeerProcess:
    """This engine, or a row of one of PACKAGES, in a process of its own."""

    def __init__(self, name: str, model: Path, workload: PeerWorkload) -> None:
        """Start the process and load the peer.

        Raises:
            RequestError: the peer fails.
        """
        self.name = name
        command, variables = module_process(__name__, [name, str(model), json.dumps(asdict(workload))])
        self._process = subprocess.Popen(  # noqa: S603 - this module
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
        self.load_s: float = loaded["load_s"]
        self.peak_rss_bytes: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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


def main(arguments: list[str]) -> int:
    """Load a peer and measure the rounds that standard input names."""
    name, model, workload = arguments
    try:
        start = perf_counter()
        peer = _LOADERS[name](read_header(Path(model)), PeerWorkload(**json.loads(workload)))
        _print({"version": peer.version, "load_s": perf_counter() - start})
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
    sys.exit(main(sys.argv[1:]))
