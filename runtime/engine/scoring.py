"""Scoring of given tokens: log-probabilities of continuations and prompts, and exact logits."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from ...errors import ModelFileError, RequestError
from ..llama.context import Context, ContextParams, Span
from ..llama.logits import Logits
from ..llama.model import LoraAdapter
from ..request import TokenLogprob
from .prefix_cache import PREFIX_TOKENS_MIN, KvState, common_length

Tokens = Sequence[int]
_PAIRS = 8  # continuations computed at once: about as many as fill a batch
_CONTINUATION_ROWS = 128  # rows of logits at once, each as wide as the vocabulary
_LOGITS_ROWS = 64


def continuation_params(params: ContextParams) -> ContextParams:
    """Derive the parameters of a context for ContinuationScorer: at most 8 slots, more rows of logits."""
    slots = min(params.slots, _PAIRS)
    return replace(params, slots=slots, outputs=max(min(_CONTINUATION_ROWS, params.batch), slots))


def exact_params(params: ContextParams) -> ContextParams:
    """Derive the parameters of a context for compute_logits(): one slot, everything in float32."""
    rows = min(_LOGITS_ROWS, params.context)
    return ContextParams(params.context, 1, rows, params.threads, outputs=rows, exact=True)


class SharedPrefix:
    """The prefix that several texts share: computed once, its KV cache is restored in every slot.

    Attributes:
        length: its tokens; 0 if the texts share too few.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.length = 0
        self._state: KvState | None = None

    def compute(self, texts: Sequence[Tokens]) -> None:
        """Compute what texts begin with, without the last token of any, in slot 0 of an empty context."""
        first, *others = [tuple(text[:-1]) for text in texts] or [()]
        shared = min((common_length(first, other) for other in others), default=0)
        self.length, self._state = (shared, None) if shared >= PREFIX_TOKENS_MIN else (0, None)
        if self.length:
            step = self._context.params.batch
            try:
                for start in range(0, shared, step):
                    self._context.decode([Span(0, start, first[start : min(shared, start + step)], 0)])
                self._state = self._context.save(0)
            finally:
                self._context.clear(0)

    def restore(self, slot: int) -> None:
        """Restore the prefix in an empty slot.

        Raises:
            ModelFileError: llama.cpp rejects it.
        """
        if self._state is not None and not self._context.restore(slot, self._state, self.length):
            raise ModelFileError("llama.cpp rejects the KV cache of a sequence that it saved")


class ContinuationScorer:
    """Computes log-probabilities of continuations, batched as in prefill."""

    def __init__(self, context: Context) -> None:
        """Use a context, which must have nothing else in it, with continuation_params()."""
        self._context, self._params = context, context.params
        self._top = 0  # likeliest tokens to report
        self._prefix = SharedPrefix(context)

    def score(
        self, pairs: Sequence[tuple[Tokens, Tokens]], adapter: LoraAdapter | None, top: int = 0
    ) -> list[tuple[TokenLogprob, ...]]:
        """Compute the log-probability of each token of each continuation, in nats.

        Args:
            pairs: prompt and continuation, neither empty.
            adapter: applied to all of them.
            top: number of likeliest tokens to report beside each token.

        Raises:
            RequestError: a pair is longer than the context, or has an empty part or an unknown token.
            ModelFileError: the computation failed.
        """
        for prompt, continuation in pairs:
            self._check(prompt, continuation)
        self._context.set_adapter(adapter)
        self._top = top
        scores: list[tuple[TokenLogprob, ...]] = [()] * len(pairs)
        try:
            self._prefix.compute([prompt for prompt, _ in pairs])
            for batch in self._batches(pairs):
                for index, logprobs in zip(batch, self._score_batch([pairs[i] for i in batch]), strict=True):
                    scores[index] = logprobs
        finally:
            self._context.set_adapter(None)  # the caller may now close the adapter
        return scores

    def _check(self, prompt: Tokens, continuation: Tokens) -> None:
        length = len(prompt) + len(continuation) - 1
        if not prompt or not continuation or length > self._params.context:
            raise RequestError(
                f"a prompt of {len(prompt)} tokens and a continuation of {len(continuation)}: neither may be "
                f"empty, and the context holds {self._params.context}"
            )
        self._context.model.check_tokens(prompt)
        self._context.model.check_tokens(continuation)

    def _batches(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> Iterator[list[int]]:
        """Yield the indices of each batch, of similar lengths: llama.cpp computes equal numbers of tokens."""
        params = self._params
        batch: list[int] = []
        tokens = rows = 0
        for index in sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index]))):
            length, outputs = sum(map(len, pairs[index])) - 1 - self._prefix.length, len(pairs[index][1])
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

    def _score_batch(self, batch: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[TokenLogprob, ...]]:
        with ExitStack() as slots:
            for slot in range(len(batch)):
                slots.callback(self._context.clear, slot)
                self._prefix.restore(slot)
            if len(batch) == 1:
                return [self._score_one(*batch[0])]
            spans = [
                Span(
                    slot,
                    self._prefix.length,
                    (*prompt, *continuation[:-1])[self._prefix.length :],
                    len(continuation),
                )
                for slot, (prompt, continuation) in enumerate(batch)
            ]
            rows = iter(self._context.decode(spans))
            return [
                tuple(self._logprob(next(rows), token) for token in continuation) for _, continuation in batch
            ]

    def _score_one(self, prompt: Tokens, continuation: Tokens) -> tuple[TokenLogprob, ...]:
        """Score a pair that may be longer than a batch, or than its rows of logits."""
        tokens, first = (*prompt, *continuation[:-1]), len(prompt) - 1
        logprobs: list[TokenLogprob] = []
        step = min(self._params.batch, self._params.outputs)
        for start in range(self._prefix.length, len(tokens), step):
            part = tokens[start : start + step]
            outputs = max(min(start + len(part) - first, len(part)), 0)
            rows = self._context.decode([Span(0, start, part, outputs)])
            position = start + len(part) - outputs
            logprobs += (
                self._logprob(row, continuation[at - first]) for at, row in enumerate(rows, position)
            )
        return tuple(logprobs)

    def _logprob(self, row: int, token: int) -> TokenLogprob:
        return self._context.logprob(row, token, self._top)


def compute_logits(context: Context, tokens: Tokens, adapter: LoraAdapter | None) -> Logits:
    """Compute the logits after each token, (tokens, vocab), in slot 0 of an empty context.

    Args:
        context: computes them.
        tokens: the text.
        adapter: applied to it.

    Raises:
        RequestError: there are no tokens, more than fit the context, or unknown ones.
        ModelFileError: the computation failed.
    """
    maximum, batch = context.params.context, context.params.batch
    if not 1 <= len(tokens) <= maximum:
        raise RequestError(f"logits: from 1 to {maximum} tokens fit the context, not {len(tokens)}")
    logits = np.empty((len(tokens), context.model.vocabulary_size), np.float32)  # (tokens, vocab)
    context.set_adapter(adapter)
    try:
        for start in range(0, len(tokens), batch):
            part = tuple(tokens[start : start + batch])
            for position, row in enumerate(context.decode([Span(0, start, part, len(part))]), start):
                logits[position] = context.logits_row(row)
    finally:
        context.set_adapter(None)  # the caller may now close the adapter
        context.clear(0)
    return logits
