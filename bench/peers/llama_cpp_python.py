"""The high-level API of llama-cpp-python as a peer."""

from importlib.metadata import version
from time import perf_counter

import llama_cpp

from ...files.gguf_header import Header
from .peer import PeerWorkload, random_tokens


class LlamaCppPythonPeer:
    """The generate loop of llama-cpp-python, which serves one request after the other."""

    name = "llama-cpp-python"

    def __init__(self, model: Header, workload: PeerWorkload, **options: object) -> None:
        """Load the model with llama-cpp-python's own defaults, but for context, threads and `options`."""
        self.version, self._workload = version("llama-cpp-python"), workload
        self._llama = llama_cpp.Llama(
            str(model.path),
            n_ctx=workload.context,
            n_threads=workload.threads,
            n_threads_batch=workload.threads,
            verbose=False,
            **options,
        )

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round."""
        work = self._workload
        prefill_s, decode_s = self._time(round_number, work.prompt_tokens, work.decode_tokens)
        if work.depth != work.prompt_tokens:
            _, decode_s = self._time(round_number, work.depth, work.decode_tokens)
        together_s = sum(
            sum(self._time(round_number * work.sequences + sequence, work.short_prompt, work.short_answer))
            for sequence in range(work.sequences)
        )
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

    def _time(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        """Seconds to the first token, and from there for `decode_tokens` more."""
        tokens = random_tokens(seed, prompt_tokens, self._llama.n_vocab())
        self._llama.reset()
        start = perf_counter()
        generated = self._llama.generate(tokens, temp=0.0)
        next(generated)
        first = perf_counter()
        for _ in range(decode_tokens):
            next(generated)
        return first - start, perf_counter() - first
