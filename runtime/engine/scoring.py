"""Scoring of given texts: log-probabilities of their tokens, and exact logits."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property

import numpy as np

from ...stats.arrays import Floats
from ..answer import TokenLogprob
from ..llama.context import Context
from ..llama.model import LoraAdapter, Model
from ..llama.settings import Settings

_PROMPT_ROWS = 128  # rows of logits at once, each as wide as the vocabulary
_LOGITS_ROWS = 64


class Scoring(ExitStack):
    """Scoring of an engine, by one thread at a time: contexts of its own, each made when first needed."""

    def __init__(self, model: Model, settings: Settings) -> None:
        super().__init__()
        self._model, self._settings = model, settings

    def prompt_logprobs(
        self, tokens: Sequence[int], top: int, adapter: LoraAdapter | None
    ) -> list[TokenLogprob]:
        """See Engine.prompt_logprobs()."""
        self._context.set_adapter(adapter)
        scored = zip(self._context.decode_text(tokens[:-1]), tokens[1:], strict=True)
        return [self._context.logprob(row, token, top) for row, token in scored]

    def logits(self, tokens: Sequence[int], adapter: LoraAdapter | None) -> Floats:
        """See Engine.logits()."""
        logits = np.empty((len(tokens), self._model.vocabulary_size), np.float32)  # (tokens, vocab)
        self._exact_context.set_adapter(adapter)
        for place, row in enumerate(self._exact_context.decode_text(tokens)):
            logits[place] = self._exact_context.logits_row(row)
        return logits

    @cached_property
    def _context(self) -> Context:
        rows = min(_PROMPT_ROWS, self._settings.batch)
        settings = replace(self._settings, slots=1, outputs=rows)
        return self.enter_context(Context(self._model, settings))

    @cached_property
    def _exact_context(self) -> Context:
        rows = min(_LOGITS_ROWS, self._settings.context)
        exact = replace(self._settings, slots=1, batch=rows, outputs=rows, exact=True, adaptive_threads=False)
        return self.enter_context(Context(self._model, exact))
