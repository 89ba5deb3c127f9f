"""A peer in a process of its own, which survives its crashes and shares no memory or threads with the others.

The worker prints a line of JSON when the peer is loaded, and one for each round that it reads from standard
input.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any, Self

from ...errors import RequestError, ThirteenError
from ...files.gguf_header import Header, read_header
from ..harness.isolated import module_process
from ..harness.peak_memory import peak_rss_bytes
from .llama_cpp_python import LlamaCppPythonPeer
from .openvino import OpenVinoPeer
from .peer import Peer, PeerWorkload
from .thirteen import ThirteenPeer
from .xllamacpp import XllamacppPeer

_TIMEOUT_S = 1800  # of a round, or of loading

Loader = Callable[[Header, PeerWorkload], Peer]

# How each peer is loaded, and the package that it needs.
_PEERS: dict[str, tuple[Loader, str]] = {
    "thirteen": (ThirteenPeer, "thirteen"),
    "llama-cpp-python": (LlamaCppPythonPeer, "llama_cpp"),
    "llama-cpp-python flash_attn=True": (partial(LlamaCppPythonPeer, flash_attn=True), "llama_cpp"),
    "openvino": (OpenVinoPeer, "openvino_genai"),
    "xllamacpp": (XllamacppPeer, "xllamacpp"),
}
PACKAGES = tuple(name for name in _PEERS if name != ThirteenPeer.name)  # those to compare with


class PeerProcess:
    """This engine, or one of PACKAGES, in a process of its own."""

    def __init__(self, name: str, model: Path, workload: PeerWorkload) -> None:
        """Start the process and load the peer.

        Raises:
            RequestError: the package is missing, or the peer fails.
        """
        self.name = name
        _, package = _PEERS[name]
        if find_spec(package) is None:
            raise RequestError(f"{name}: {package} is not installed")
        command, variables = module_process(__name__, [name, str(model), json.dumps(asdict(workload))])
        self._process = subprocess.Popen(  # noqa: S603 - this module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables
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
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def speeds(self, round_number: int) -> tuple[float | None, float | None, float | None]:
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
        prefill, decode, together = answer["speeds"]
        return prefill, decode, together

    def _read(self) -> dict[str, Any]:
        """The next answer of the process, which is killed if it takes too long."""
        timer = Timer(_TIMEOUT_S, self._process.kill)
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
        load, _ = _PEERS[name]
        start = perf_counter()
        peer = load(read_header(Path(model)), PeerWorkload(**json.loads(workload)))
        _print({"version": peer.version, "load_s": perf_counter() - start})
        for line in sys.stdin:
            _print({"speeds": peer.speeds(int(line)), "peak_rss_bytes": peak_rss_bytes()})
    except (ThirteenError, ImportError) as error:
        _print({"error": str(error)})
        return 2
    return 0


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
