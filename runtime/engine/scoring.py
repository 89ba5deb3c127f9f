"""Scoring of given texts: log-probabilities of their tokens, and exact logits."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property

import numpy as np

from ...stats.arrays import Floats
from ..llama.context import Context
from ..llama.model import LoraAdapter, Model
from ..native.settings import Settings
from ..request import TokenLogprob
from .adapters import Adapters

Tokens = Sequence[int]
_PROMPT_ROWS = 128  # rows of logits at once, each as wide as the vocabulary
_LOGITS_ROWS = 64


class Scoring:
    """Scoring of an engine, by one thread at a time: contexts of its own, each made when first needed."""

    def __init__(self, model: Model, settings: Settings, adapters: Adapters) -> None:
        """Do nothing yet; `settings` are those of the engine's own context."""
        self._contexts = ExitStack()
        self._model, self._settings, self._adapters = model, settings, adapters

    def close(self) -> None:
        """Free the contexts."""
        self._contexts.close()

    def prompt_logprobs(self, tokens: Tokens, top: int, adapter: str) -> list[TokenLogprob]:
        """See Engine.prompt_logprobs()."""
        if len(tokens) < 2:
            return []
        with _lent(self._context, self._adapters[adapter]) as context:
            scored = zip(context.decode_text(tokens[:-1]), tokens[1:], strict=True)
            return [context.logprob(row, token, top) for row, token in scored]

    def logits(self, tokens: Tokens, adapter: str) -> Floats:
        """See Engine.logits()."""
        logits = np.empty((len(tokens), self._model.vocabulary_size), np.float32)  # (tokens, vocab)
        with _lent(self._exact_context, self._adapters[adapter]) as context:
            for place, row in enumerate(context.decode_text(tokens)):
                logits[place] = context.logits_row(row)
        return logits

    @cached_property
    def _context(self) -> Context:
        """A context with the memory of one slot."""
        rows = min(_PROMPT_ROWS, self._settings.batch)
        return self._open(replace(self._settings, slots=1, outputs=rows))

    @cached_property
    def _exact_context(self) -> Context:
        rows = min(_LOGITS_ROWS, self._settings.context)
        exact = replace(self._settings, slots=1, batch=rows, outputs=rows, exact=True)
        return self._open(replace(exact, adaptive_threads=False))

    def _open(self, settings: Settings) -> Context:
        return self._contexts.enter_context(Context(self._model, settings))


@contextmanager
def _lent(context: Context, adapter: LoraAdapter | None) -> Iterator[Context]:
    """A context with an adapter for one text; afterwards it is empty again, and has none."""
    with ExitStack() as undo:
        context.set_adapter(adapter)
        undo.callback(context.set_adapter, None)  # the caller may then close the adapter
        undo.callback(context.clear, 0)
        yield context
