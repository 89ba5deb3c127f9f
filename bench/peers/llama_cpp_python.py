"""The high-level API of llama-cpp-python as a peer."""

from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Self

import llama_cpp
import numpy as np

from ...runtime.llama.compute_thread import COMPUTE_THREAD
from .peer import PeerWorkload


class LlamaCppPythonPeer:
    """The generate loop of llama-cpp-python, which serves one request after the other."""

    name = "llama-cpp-python"

    def __init__(self, model: Path, workload: PeerWorkload) -> None:
        self.version, self._workload = version("llama-cpp-python"), workload
        short = workload.short_prompt + workload.short_answer
        self._llama = llama_cpp.Llama(
            str(model),
            n_ctx=max(workload.prompt_tokens, workload.decode_tokens, short) + 8,
            n_batch=512,
            n_threads=workload.threads,
            n_threads_batch=workload.threads,
            flash_attn=True,
            verbose=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round in the thread in which the engine computes too."""
        return COMPUTE_THREAD.call(lambda: self._speeds(round_number))

    def _speeds(self, round_number: int) -> tuple[float, float, float]:
        work = self._workload
        prefill_s, _ = self._time(round_number, work.prompt_tokens, 1)
        _, decode_s = self._time(round_number, 1, work.decode_tokens)
        together_s = sum(
            sum(self._time(round_number * work.sequences + sequence, work.short_prompt, work.short_answer))
            for sequence in range(work.sequences)
        )
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

    def _time(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        """Seconds to the first token, and from there for `decode_tokens` more."""
        tokens = np.random.default_rng(seed).integers(1, self._llama.n_vocab() // 2, prompt_tokens).tolist()
        self._llama.reset()
        start = perf_counter()
        generated = self._llama.generate(tokens, temp=0.0)
        next(generated)
        first = perf_counter()
        for _ in range(decode_tokens):
            next(generated)
        return first - start, perf_counter() - first
