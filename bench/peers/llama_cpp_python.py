"""The high-level API of llama-cpp-python as a peer."""

from importlib.metadata import version
from time import perf_counter
from typing import Any

import llama_cpp

from ...files.gguf.header import Header
from ...files.processors import multiplies_bf16
from ...runtime.native.settings import KV_TYPES
from .peer import PeerWorkload, RequestPeer, random_tokens

_BF16 = dict.fromkeys(("type_k", "type_v"), int(KV_TYPES["bf16"]))
# Settings that may be faster than the defaults, by the names of their rows.
SETTINGS: dict[str, dict[str, Any]] = {
    "flash_attn=True": {"flash_attn": True},
    "n_ubatch=128": {"n_ubatch": 128},
    **({"bf16": _BF16, "flash_attn=True bf16": {"flash_attn": True, **_BF16}} if multiplies_bf16() else {}),
}


class LlamaCppPythonPeer(RequestPeer):
    """The generate loop of llama-cpp-python, which serves one request after the other."""

    def __init__(self, model: Header, workload: PeerWorkload, **options: Any) -> None:
        """Load the model with llama-cpp-python's own defaults, but for context, threads and `options`."""
        super().__init__(workload)
        self.version = version("llama-cpp-python")
        self._llama = llama_cpp.Llama(
            str(model.path),
            n_ctx=workload.context,
            n_threads=workload.threads,
            n_threads_batch=workload.threads,
            verbose=False,
            **options,
        )

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        tokens = random_tokens(seed, prompt_tokens, self._llama.n_vocab())
        self._llama.reset()
        start = perf_counter()
        generated = self._llama.generate(tokens, temp=0.0)
        next(generated)
        first = perf_counter()
        for _ in range(decode_tokens):
            next(generated)
        return first - start, perf_counter() - first

    def _together_s(self, round_number: int) -> float:
        work, seeds = self._workload, self._sequence_seeds(round_number)
        return sum(sum(self._answer_s(seed, work.short_prompt, work.short_answer)) for seed in seeds)
