"""llama-cpp-python's own loop as a peer."""

from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Self

import llama_cpp
import numpy as np

from ...runtime.llama.compute_thread import COMPUTE_THREAD
from .peer import PeerWorkload


class LlamaCppPython:
    """llama-cpp-python's own loop, one request after the other."""

    name = "llama-cpp-python"

    def __init__(self, model: Path, work: PeerWorkload) -> None:
        self.version, self._work = version("llama-cpp-python"), work
        context = max(work.prompt_tokens, work.decode_tokens, work.short_prompt + work.short_answer) + 8
        self._llama = llama_cpp.Llama(
            str(model),
            n_ctx=context,
            n_batch=512,
            n_threads=work.threads,
            n_threads_batch=work.threads,
            flash_attn=True,
            verbose=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def speeds(self, number: int) -> tuple[float, float, float]:
        """See Peer."""
        return COMPUTE_THREAD.call(lambda: self._speeds(number))  # where this engine computes as well

    def _speeds(self, number: int) -> tuple[float, float, float]:
        work = self._work
        read_s, _ = self._turn(number, work.prompt_tokens, 1)
        _, wrote_s = self._turn(number, 1, work.decode_tokens)
        turns = (
            self._turn(number * work.sequences + one, work.short_prompt, work.short_answer)
            for one in range(work.sequences)
        )
        together_s = sum(map(sum, turns))
        return work.prompt_tokens / read_s, work.decode_tokens / wrote_s, work.together / together_s

    def _turn(self, number: int, prompt: int, answer: int) -> tuple[float, float]:
        """Seconds to the first token, and from there over `answer` more."""
        tokens = np.random.default_rng(number).integers(1, self._llama.n_vocab() // 2, prompt).tolist()
        self._llama.reset()
        began = perf_counter()
        chosen = self._llama.generate(tokens, temp=0.0)
        next(chosen)
        read = perf_counter()
        for _ in range(answer):
            next(chosen)
        return read - began, perf_counter() - read
