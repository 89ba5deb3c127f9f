"""llama.cpp's own benchmarks as a peer: its programs are run, and what they print is read."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import RequestError
from .peer import PeerWorkload


class LlamaBench:
    """llama.cpp's own benchmarks: llama-bench, and llama-batched-bench where there is that."""

    name = "llama-bench"

    def __init__(self, model: Path, work: PeerWorkload, command: str, batched: str | None) -> None:
        self._model, self._work, self._command, self._batched = model, work, command, batched
        self.version = self._single()[0]["build_commit"]

    def speeds(self, number: int) -> tuple[float, float, float | None]:
        """See Peer; the numbers do not matter, it has one prompt."""
        prefill, decode = (float(test["avg_ts"]) for test in self._single())
        return prefill, decode, self._together()

    def _single(self) -> list[dict[str, Any]]:
        work = self._work
        said = _run(
            *(self._command, "-m", str(self._model), "-t", str(work.threads), "-r", "1", "-o", "json"),
            *("-p", str(work.prompt_tokens), "-n", str(work.decode_tokens), "-fa", "1"),
        )
        with _understood(self._command):
            tests = [
                {"build_commit": test["build_commit"], "avg_ts": test["avg_ts"]} for test in json.loads(said)
            ]
            prefill, decode = tests
        return [prefill, decode]

    def _together(self) -> float | None:
        if self._batched is None:
            return None
        work, threads = self._work, str(self._work.threads)
        said = _run(
            *(self._batched, "-m", str(self._model), "-t", threads, "-tb", threads, "-fa", "on"),
            *("-c", str(work.together + 64 * work.sequences), "-b", "512", "-ub", "512"),
            *("-npp", str(work.short_prompt), "-ntg", str(work.short_answer), "-npl", str(work.sequences)),
            *("--output-format", "jsonl"),
        )
        with _understood(self._batched):
            (line,) = (line for line in said.splitlines() if line.startswith("{"))
            return float(json.loads(line)["speed"])


@contextmanager
def _understood(command: str) -> Iterator[None]:
    """Turn what goes wrong in reading a program's output into an error that names the program."""
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{command}: its output is not of the kind that is known here") from None


def _run(*command: str) -> str:
    """What a program says on its standard output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the user's own
    except OSError as failure:
        raise RequestError(f"{command[0]}: {failure.strerror or failure}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RequestError(f"{command[0]} ended with status {done.returncode}: {last}")
    return done.stdout
