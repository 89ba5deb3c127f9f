"""llama.cpp's benchmark programs llama-bench and llama-batched-bench as a peer."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import RequestError
from .peer import TIMEOUT_S, PeerWorkload, Speeds


def llama_bench_name(*, flash: bool) -> str:
    """Name of the row with or without flash attention."""
    return "llama-bench -fa 1" if flash else "llama-bench"


class LlamaBenchPeer:
    """llama-bench, and llama-batched-bench for concurrent sequences if it is given."""

    def __init__(
        self, model: Path, workload: PeerWorkload, command: str, batched: str | None, *, flash: bool
    ) -> None:
        self.name = llama_bench_name(flash=flash)
        self._model, self._workload, self._command, self._batched = model, workload, command, batched
        self._flash = flash
        self.version, _, _ = self._run_single()

    def speeds(self, round_number: int) -> Speeds:
        """Measure a round; the prompt is the same in every round."""
        _, prefill, decode = self._run_single()
        return prefill, decode, self._run_batched(self._batched) if self._batched else None, None

    def _run_single(self) -> tuple[str, float, float]:
        """Commit of the build, and tokens per second of prefill and decode."""
        work = self._workload
        output = _run(
            *(self._command, "-m", str(self._model), "-t", str(work.threads), "-r", "1", "-o", "json"),
            *("-p", str(work.prompt_tokens), "-n", str(work.decode_tokens), "-fa", str(int(self._flash))),
            *("-d", f"0,{work.depth}"),
        )
        with _parsing(self._command, "llama-bench"):
            tests = {(one["n_prompt"], one["n_gen"], one["n_depth"]): one for one in json.loads(output)}
            prefill, decode = tests[work.prompt_tokens, 0, 0], tests[0, work.decode_tokens, work.depth]
            return prefill["build_commit"], float(prefill["avg_ts"]), float(decode["avg_ts"])

    def _run_batched(self, command: str) -> float:
        work, threads = self._workload, str(self._workload.threads)
        output = _run(
            *(
                command,
                "-m",
                str(self._model),
                "-t",
                threads,
                "-tb",
                threads,
                "-fa",
                "on" if self._flash else "off",
            ),
            *("-c", str(work.batched_tokens + 64 * work.sequences), "-b", "512", "-ub", "512"),
            *("-npp", str(work.short_prompt), "-ntg", str(work.short_answer), "-npl", str(work.sequences)),
            *("--output-format", "jsonl"),
        )
        with _parsing(command, "llama-batched-bench"):
            (line,) = (line for line in output.splitlines() if line.startswith("{"))
            return float(json.loads(line)["speed"])


@contextmanager
def _parsing(command: str, program: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError):
        raise RequestError(f"{command}: its output is not that of {program}") from None


def _run(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the user's own
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise RequestError(f"{command[0]}: it took longer than {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise RequestError(f"{command[0]}: {error.strerror or error}") from None
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        raise RequestError(f"{command[0]}: failed with exit status {done.returncode}: {last_line}")
    return done.stdout
