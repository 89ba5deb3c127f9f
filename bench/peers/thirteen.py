"""This engine as a peer, through its public API."""

from importlib.metadata import version
from time import perf_counter

from ...files.gguf.header import Header
from ...quality.workload import Workload, load_engine, random_prompt, time_prefill_and_decode
from ...runtime.request import Request
from .peer import PeerWorkload, RequestPeer


class ThirteenPeer(RequestPeer):
    """This engine with its own defaults, but for context, slots, threads and the prefix cache."""

    def __init__(self, model: Header, workload: PeerWorkload) -> None:
        """Load an engine with a slot for each concurrent sequence.

        Raises:
            ThirteenError: load_engine() raises it.
        """
        super().__init__(workload)
        self.version = version("thirteen")
        work = Workload(
            workload.prompt_tokens,
            1 + workload.decode_tokens,
            workload.threads,
            longest=workload.short_prompt + 1 + workload.short_answer,
            adaptive_threads=True,
        )
        self._engine = load_engine(model.path, None, work, slots=workload.sequences)

    def _answer_s(self, seed: int, prompt_tokens: int, decode_tokens: int) -> tuple[float, float]:
        prompt = random_prompt(self._engine.model, seed, prompt_tokens)
        return time_prefill_and_decode(self._engine, prompt, decode_tokens)

    def _together_s(self, round_number: int) -> float:
        work, engine = self._workload, self._engine
        requests = [
            Request(
                random_prompt(engine.model, seed, work.short_prompt),
                max_tokens=1 + work.short_answer,
                ignore_end=True,
            )
            for seed in self._sequence_seeds(round_number)
        ]
        start = perf_counter()
        for handle in engine.submit_all(requests):
            handle.wait()
        return perf_counter() - start
