"""Scoring of given tokens: log-probabilities of continuations and prompts, and exact logits."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from threading import Lock
from typing import Self

import numpy as np

from ...errors import RequestError
from ..llama.context import Context, ContextParams, Span
from ..llama.model import LoraAdapter, Model
from ..logits import Logits
from ..request import TokenLogprob
from .adapters import Adapters

Tokens = Sequence[int]
_PAIRS = 8  # continuations computed at once: about as many as fill a batch
_CONTINUATION_ROWS = 128  # rows of logits at once, each as wide as the vocabulary
_LOGITS_ROWS = 64


class ContinuationScorer:
    """Computes log-probabilities of continuations, batched as in prefill."""

    def __init__(self, context: Context) -> None:
        """Use a context, which must have nothing else in it."""
        self._context, self._params = context, context.params
        self._top = 0  # likeliest tokens to report

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
            length, outputs = sum(map(len, pairs[index])) - 1, len(pairs[index][1])
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
            if len(batch) == 1:
                return [self._score_one(*batch[0])]
            spans = [
                Span(slot, 0, (*prompt, *continuation[:-1]), len(continuation))
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
        for start in range(0, len(tokens), step):
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


class Scoring:
    """Scoring of an engine: contexts beside that of its requests, each made when first needed."""

    def __init__(self, model: Model, params: ContextParams, adapters: Adapters) -> None:
        """Do nothing yet; `params` are those of the engine's own context."""
        self.lock = Lock()  # one text at a time; also held while an adapter is replaced
        self._model, self._params, self._adapters = model, params, adapters
        self._contexts, self._scorers = ExitStack(), dict[int, ContinuationScorer]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.close()

    def log_likelihoods(
        self, pairs: Sequence[tuple[Tokens, Tokens]], adapter: str
    ) -> list[tuple[float, ...]]:
        """See Engine.log_likelihoods()."""
        with self.lock:
            scores = self._scorer(min(self._params.slots, _PAIRS)).score(pairs, self._adapters[adapter])
        return [tuple(token.logprob for token in score) for score in scores]

    def prompt_logprobs(self, tokens: Tokens, top: int, adapter: str) -> tuple[TokenLogprob, ...]:
        """See Engine.prompt_logprobs()."""
        if len(tokens) < 2:
            return ()
        with self.lock:
            pair = (tokens[:1], tokens[1:])
            (score,) = self._scorer(1).score([pair], self._adapters[adapter], top)
        return score

    def logits(self, tokens: Tokens, adapter: str) -> Logits:
        """See Engine.logits()."""
        with self.lock:
            return compute_logits(self._exact_context, tokens, self._adapters[adapter])

    def _scorer(self, slots: int) -> ContinuationScorer:
        """The scorer with so many slots; with one, a long prompt needs the memory of one slot only."""
        if slots not in self._scorers:
            rows = max(min(_CONTINUATION_ROWS, self._params.batch), slots)
            context = self._open(replace(self._params, slots=slots, outputs=rows))
            self._scorers[slots] = ContinuationScorer(context)
        return self._scorers[slots]

    @cached_property
    def _exact_context(self) -> Context:
        rows = min(_LOGITS_ROWS, self._params.context)
        return self._open(
            ContextParams(self._params.context, 1, rows, rows, threads=self._params.threads, exact=True)
        )

    def _open(self, params: ContextParams) -> Context:
        return self._contexts.enter_context(Context(self._model, params))
