"""This engine as a peer, through its public API."""

from importlib.metadata import version
from time import perf_counter

from ...files.gguf_header import Header
from ...runtime.request import Request
from ..harness.iteration import random_prompt, time_prefill_and_decode
from ..harness.workload import Workload, load_engine
from .peer import PeerWorkload


class ThirteenPeer:
    """This engine with its own defaults, but for context, slots, threads and the prefix cache."""

    name = "thirteen"

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load an engine with a slot for each concurrent sequence.

        Raises:
            ThirteenError: load_engine() raises it.
        """
        self.version, self._workload = version("thirteen"), workload
        work = Workload(
            max(workload.prompt_tokens, workload.depth),
            1 + workload.decode_tokens,
            workload.threads,
            longest=workload.short_prompt + 1 + workload.short_answer,
        )
        self._engine = load_engine(model.path, None, work, slots=workload.sequences)

    def speeds(self, round_number: int) -> tuple[float, float, float]:
        """Measure a round."""
        work, engine = self._workload, self._engine
        prompt = random_prompt(engine.model, round_number, work.prompt_tokens)
        prefill_s, decode_s = time_prefill_and_decode(engine, prompt, work.decode_tokens)
        if work.depth != work.prompt_tokens:
            prompt = random_prompt(engine.model, round_number, work.depth)
            _, decode_s = time_prefill_and_decode(engine, prompt, work.decode_tokens)
        together_s = self._time_batch(round_number)
        return work.prompt_tokens / prefill_s, work.decode_tokens / decode_s, work.batched_tokens / together_s

    def _time_batch(self, round_number: int) -> float:
        work, model = self._workload, self._engine.model
        first = round_number * work.sequences
        requests = [
            Request(
                random_prompt(model, number, work.short_prompt),
                max_tokens=1 + work.short_answer,
                ignore_end=True,
            )
            for number in range(first, first + work.sequences)
        ]
        start = perf_counter()
        for handle in self._engine.submit_all(requests):
            handle.wait()
        return perf_counter() - start
