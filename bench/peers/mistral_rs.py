"""mistral.rs as a peer: an inference engine in Rust, which reads GGUF files."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from .peer import PeerWorkload, RequestPeer

_LOWERCASE_WORD = re.compile("Ġ[a-z]{3,}")  # a token that its own text is tokenized to


class MistralRsPeer(RequestPeer):
    """The engine with its own defaults, but for threads, sequences and the reuse of prefixes.

    It takes prompts as text: random words of one token each. Its own clock tells prefill from decode.
    """

    name = "mistralrs"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load the model.

        Raises:
            RequestError: mistral.rs cannot read the file.
        """
        os.environ["RAYON_NUM_THREADS"] = str(workload.threads)
        import mistralrs  # noqa: PLC0415 - only if it is a peer, and after the variable is set

        super().__init__(workload)
        self.version = version("mistralrs")
        tokens = model.metadata["tokenizer.ggml.tokens"]
        self._words = [token[1:] for token in tokens[: len(tokens) // 2] if _LOWERCASE_WORD.fullmatch(token)]
        if not self._words:
            raise RequestError(f"{model.path}: its vocabulary has no words")
        path = model.path.resolve()
        which = mistralrs.Which.GGUF(quantized_model_id=str(path.parent), quantized_filename=path.name)
        try:
            self._runner = mistralrs.Runner(which=which, prefix_cache_n=0, max_seqs=workload.sequences)
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"{path}: {one_line(error)}") from None

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        usage = self._complete(seed, prompt_tokens, 1 + decode_tokens)
        return usage.total_prompt_time_sec, usage.total_completion_time_sec

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        with ThreadPoolExecutor(work.sequences) as clients:
            start = perf_counter()
            answers = [
                clients.submit(self._complete, seed, work.short_prompt, 1 + work.short_answer)
                for seed in self._sequence_seeds(round_number)
            ]
            for answer in answers:
                answer.result()
            return perf_counter() - start

    def _complete(self, seed: int, prompt_tokens: int, tokens: int) -> Any:
        """The engine's count of tokens and seconds of one request."""
        import mistralrs  # noqa: PLC0415 - only if it is a peer

        words = np.random.default_rng(seed).choice(self._words, prompt_tokens)
        request = mistralrs.CompletionRequest(
            prompt="".join(f" {word}" for word in words),
            model="default",
            max_tokens=tokens,
            temperature=0.0,
            ignore_eos=True,
        )
        try:
            usage = self._runner.send_completion_request(request).usage
        except (RuntimeError, ValueError) as error:
            raise RequestError(one_line(error)) from None
        counted = usage.prompt_tokens, usage.completion_tokens
        if counted not in {(prompt_tokens, tokens), (prompt_tokens + 1, tokens)}:  # one more: a begin token
            raise RequestError(
                f"mistralrs: read and wrote {counted} tokens instead of {prompt_tokens, tokens}"
            )
        return usage
