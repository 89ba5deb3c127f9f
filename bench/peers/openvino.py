"""OpenVINO GenAI as a peer, which reads the same GGUF file."""

from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import RequestError, one_line
from ...files.gguf.header import Header
from .peer import PeerWorkload, RequestPeer, random_tokens, vocabulary_size


class OpenVinoPeer(RequestPeer):
    """OpenVINO's pipeline with its own defaults, but for the number of threads and `options`."""

    name = "openvino"

    def __init__(self, model: Header, workload: PeerWorkload, **options: str) -> None:
        """Convert and load the model, which takes seconds.

        Raises:
            RequestError: OpenVINO cannot read the file.
        """
        import openvino_genai  # noqa: PLC0415 - only if it is a peer

        super().__init__(workload)
        self.version = version("openvino-genai")
        self._vocabulary = vocabulary_size(model)
        try:
            self._pipeline = openvino_genai.LLMPipeline(
                str(model.path), "CPU", INFERENCE_NUM_THREADS=workload.threads, **options
            )
        except RuntimeError as error:
            raise RequestError(f"{model.path}: {one_line(error)}") from None

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        start, first, *_, last = self._generate(seed, 1, prompt_tokens, 1 + decode_tokens)
        return first - start, last - first

    def _together_s(self, round_number: int) -> float:
        work = self._workload
        start = perf_counter()
        self._generate(round_number, work.sequences, work.short_prompt, 1 + work.short_answer)
        return perf_counter() - start

    def _generate(self, seed: int, sequences: int, prompt_tokens: int, tokens: int) -> list[float]:
        """Times of the call and, of a single sequence, of each token."""
        import openvino  # noqa: PLC0415 - only if it is a peer
        import openvino_genai  # noqa: PLC0415 - only if it is a peer

        drawn = random_tokens(seed, sequences * prompt_tokens, self._vocabulary)
        ids = np.array(drawn).reshape(sequences, prompt_tokens)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = openvino_genai.GenerationConfig()
        config.do_sample, config.ignore_eos = False, True
        config.min_new_tokens = config.max_new_tokens = tokens
        times = [perf_counter()]

        def record(_: Any) -> Any:
            times.append(perf_counter())
            return openvino_genai.StreamingStatus.RUNNING

        streamer = _streamer(openvino_genai, record) if sequences == 1 else None
        written = self._pipeline.generate(inputs, config, streamer).tokens
        if any(len(sequence) != tokens for sequence in written):
            raise RequestError(f"wrote {[len(one) for one in written]} tokens instead of {tokens}")
        return times


def _streamer(openvino_genai: Any, record: Callable[[Any], Any]) -> Any:
    """A streamer that calls `record` with each token."""

    class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
        def write(self, token: Any) -> Any:
            return record(token)

        def end(self) -> None:
            pass

    return Streamer()
