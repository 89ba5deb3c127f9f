"""llama.cpp's benchmark program llama-bench as a peer."""

import json
import subprocess

from ...errors import RequestError
from ...files.gguf.header import Header
from .peer import TIMEOUT_S, PeerWorkload, Speeds


class LlamaBenchPeer:
    """llama-bench on PATH, which measures no concurrent sequences."""

    load_s = None  # it loads the model in every round

    def __init__(self, model: Header, workload: PeerWorkload, *, flash: bool = False) -> None:
        """Run it once, to learn its version and whether it works.

        Raises:
            RequestError: it fails, or prints what llama-bench does not.
        """
        self._model, self._workload, self._command = model.path, workload, "llama-bench"
        self._flash = flash
        self.version, _, _ = self._run_single()

    def peak_rss_bytes(self) -> None:
        """Not known: each run is a process of its own."""

    def speeds(self, round_number: int) -> Speeds:
        """Measure a round; the prompt is the same in every round."""
        _, prefill, decode = self._run_single()
        return prefill, decode, None, None

    def _run_single(self) -> tuple[str, float, float]:
        """Commit of the build, and tokens per second of prefill and decode."""
        work = self._workload
        output = _run(
            *(self._command, "-m", str(self._model), "-t", str(work.threads), "-r", "1", "-o", "json"),
            *("-p", str(work.prompt_tokens), "-n", str(work.decode_tokens), "-fa", str(int(self._flash))),
            *("-d", f"0,{work.prompt_tokens}"),
        )
        try:
            tests = {(one["n_prompt"], one["n_gen"], one["n_depth"]): one for one in json.loads(output)}
            prefill, decode = (
                tests[work.prompt_tokens, 0, 0],
                tests[0, work.decode_tokens, work.prompt_tokens],
            )
            return prefill["build_commit"], float(prefill["avg_ts"]), float(decode["avg_ts"])
        except (ValueError, KeyError, TypeError):
            raise RequestError(f"{self._command}: its output is not that of llama-bench") from None


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
