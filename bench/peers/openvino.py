"""OpenVINO GenAI as a peer, which reads the same GGUF file."""

from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np

from ...errors import RequestError, one_line
from ...files.gguf_header import Header
from .peer import PeerWorkload, random_tokens


class OpenVinoPeer:
    """OpenVINO's pipeline with its own defaults, but for the number of threads."""

    name = "openvino"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Convert and load the model, which takes seconds.

        Raises:
            RequestError: OpenVINO cannot read the file.
        """
        import openvino_genai  # noqa: PLC0415 - only if it is a peer

        self.version, self._workload = version("openvino-genai"), workload
        self._vocabulary = len(model.metadata["tokenizer.ggml.tokens"])
        try:
            self._pipeline = openvino_genai.LLMPipeline(
                str(model.path), "CPU", INFERENCE_NUM_THREADS=workload.threads
            )
        except RuntimeError as error:
            raise RequestError(f"openvino: {model.path}: {one_line(error)}") from None

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round."""
        work = self._workload
        times = self._generate(round_number, 1, work.prompt_tokens, 1 + work.decode_tokens)
        prefill_s, decode_s = times[1] - times[0], times[-1] - times[1]
        if work.depth != work.prompt_tokens:
            times = self._generate(round_number, 1, work.depth, 1 + work.decode_tokens)
            decode_s = times[-1] - times[1]
        start = perf_counter()
        self._generate(round_number, work.sequences, work.short_prompt, 1 + work.short_answer)
        together_s = perf_counter() - start
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

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
            raise RequestError(f"openvino: wrote {[len(one) for one in written]} tokens instead of {tokens}")
        return times


def _streamer(openvino_genai: Any, record: Callable[[Any], Any]) -> Any:
    """A streamer that calls `record` with each token."""

    class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
        def write(self, token: Any) -> Any:
            return record(token)

        def end(self) -> None:
            pass

    return Streamer()
