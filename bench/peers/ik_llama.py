"""ik_llama.cpp as a peer: a fork of llama.cpp with its own kernels, through ik-llama-cpp-python."""

from importlib.metadata import version
from time import perf_counter

import numpy as np

from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from .peer import PeerWorkload, RequestPeer, random_tokens, vocabulary_size


class IkLlamaPeer(RequestPeer):
    """The library's contexts, one sequence after the other, with the token chosen by numpy.

    The package's own loop copies the logits of every token of the vocabulary in Python, which would hide
    the speed of the kernels; it has no way to compute several sequences together.
    """

    name = "ik"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load the model with the package's own defaults, but for context and threads.

        Raises:
            RequestError: ik_llama.cpp cannot read the file.
        """
        import ik_llama_cpp  # noqa: PLC0415 - only if it is a peer

        super().__init__(workload)
        self.version = version("ik-llama-cpp-python")
        self._vocabulary = vocabulary_size(model)
        try:
            self._llama = ik_llama_cpp.IkLlama(
                str(model.path), n_ctx=workload.context, n_threads=workload.threads, verbose=False
            )
        except RuntimeError as error:
            raise RequestError(f"{model.path}: {one_line(error)}") from None

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        tokens = random_tokens(seed, prompt_tokens, self._vocabulary)
        self._llama._context.kv_cache_clear()
        start = perf_counter()
        token = self._next_token(tokens, 0)
        first = perf_counter()
        for position in range(prompt_tokens, prompt_tokens + decode_tokens):
            token = self._next_token([token], position)
        return first - start, perf_counter() - first

    def _together_s(self, round_number: int) -> float:
        work, seeds = self._workload, self._sequence_seeds(round_number)
        return sum(sum(self._answer_s(seed, work.short_prompt, work.short_answer)) for seed in seeds)

    def _next_token(self, tokens: list[int], position: int) -> int:
        """Compute tokens from a position on; returns the likeliest next one."""
        from ik_llama_cpp._ctypes_api import llama_batch_free  # noqa: PLC0415 - it exports no other
        from ik_llama_cpp._internals import make_batch_range  # noqa: PLC0415 - it exports no other

        context = self._llama._context
        batch = make_batch_range(tokens, pos_start=position)
        try:
            if status := context.decode(batch):
                raise RequestError(f"llama_decode failed with status {status}")
        finally:
            llama_batch_free(batch)
        return int(np.ctypeslib.as_array(context.get_logits(), (self._vocabulary,)).argmax())
