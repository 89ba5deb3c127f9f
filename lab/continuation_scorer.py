"""Log-probabilities of many continuations, batched as in prefill; sums_13.py scores adapters with them."""

from collections.abc import Iterator, Sequence

from thirteen.errors import RequestError
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import LoraAdapter, Model
from thirteen.runtime.llama.settings import Settings

Pair = tuple[Sequence[int], Sequence[int]]  # prompt and continuation, neither empty


class ContinuationScorer:
    """Scores continuations in a context with nothing else in it."""

    def __init__(self, model: Model, params: Settings, adapter: LoraAdapter) -> None:
        """Make the context; the adapter is applied to all continuations."""
        self._context, self._params = Context(model, params), params
        self._context.set_adapter(adapter)

    def __enter__(self) -> "ContinuationScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def score(self, pairs: Sequence[Pair]) -> list[list[float]]:
        """Compute the log-probability of each token of each continuation, in nats.

        Raises:
            RequestError: a pair is longer than a batch, or has more rows than `outputs`.
        """
        scores: list[list[float]] = [[] for _ in pairs]
        for batch in self._batches(pairs):
            for index, logprobs in zip(batch, self._score_batch([pairs[i] for i in batch]), strict=True):
                scores[index] = logprobs
        return scores

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[list[int]]:
        """Yield the indices of each batch, of similar lengths: llama.cpp computes equal numbers of tokens."""
        params = self._params
        batch: list[int] = []
        tokens = rows = 0
        for index in sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index]))):
            length, outputs = sum(map(len, pairs[index])) - 1, len(pairs[index][1])
            if length > params.batch or outputs > params.outputs:
                raise RequestError(f"a pair of {length} tokens: a batch has {params.batch}")
            if batch and (
                len(batch) == params.slots
                or tokens + length > params.batch
                or rows + outputs > params.outputs
            ):
                yield batch
                batch, tokens, rows = [], 0, 0
            batch.append(index)
            tokens, rows = tokens + length, rows + outputs
        if batch:
            yield batch

    def _score_batch(self, batch: Sequence[Pair]) -> list[list[float]]:
        spans = [
            Span(slot, 0, (*prompt, *continuation[:-1]), len(continuation))
            for slot, (prompt, continuation) in enumerate(batch)
        ]
        rows = iter(self._context.decode(spans))
        found = [
            [self._context.logprob(next(rows), token, 0).logprob for token in continuation]
            for _, continuation in batch
        ]
        for span in spans:
            self._context.clear(span.slot)
        return found
