"""A context that makes one vector of each text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...files.gguf.pooling import embeds_in_parts, read_pooling
from ..native.llama_cpp_library import LLAMA_CPP
from ..native.settings import Settings
from .context import Context, Span
from .model import LoraAdapter, Model

if TYPE_CHECKING:
    from ...stats.arrays import Floats

Tokens = Sequence[int]


class EmbeddingContext(Context):
    """Computes several texts at once, which share the cells of the context.

    llama.cpp pools what it computes at once, and then makes logits of every token of a decoder, too. So where
    the last token's vector is the text's, that token alone is computed in this way, after those before it.

    Attributes:
        width: numbers of a vector.
    """

    def __init__(self, model: Model, settings: Settings, adapter: LoraAdapter | None = None) -> None:
        """Allocate the context; see Context. `settings` are from embedding_settings()."""
        super().__init__(model, settings, adapter, read_pooling(model.header))
        self._in_parts = embeds_in_parts(model.header)
        self.width = int(LLAMA_CPP.embedding_width(model.handle))

    def embed(self, texts: Sequence[Tokens]) -> "Floats":
        """Embed texts: at most `settings.slots`, with at most `settings.context` tokens in all.

        Returns:
            The pooled vectors, (texts, width).

        Raises:
            RequestError: a token is unknown, or there are too many.
            FileError: the computation failed.
        """
        slots = range(len(texts))
        try:
            if self._in_parts:
                self._begin(texts)
                spans = [Span(slot, len(text) - 1, (text[-1],), 1) for slot, text in enumerate(texts)]
            else:
                spans = [Span(slot, 0, tuple(text), len(text)) for slot, text in enumerate(texts)]
            self.decode(spans)
            rows = [LLAMA_CPP.embedding(self.handle, slot) for slot in slots]
            return np.stack([np.ctypeslib.as_array(row, (self.width,)) for row in rows])
        finally:
            for slot in slots:
                self.clear(slot)

    def _begin(self, texts: Sequence[Tokens]) -> None:
        """Compute all tokens but the last of each text."""
        LLAMA_CPP.set_embeddings(self.handle, False)
        spans, room = list[Span](), self.settings.batch
        for slot, text in enumerate(texts):
            start, end = 0, len(text) - 1
            while start < end:
                part = tuple(text[start : min(start + room, end)])
                spans.append(Span(slot, start, part, 0))
                start, room = start + len(part), room - len(part)
                if not room:
                    self.decode(spans)
                    spans, room = [], self.settings.batch
        if spans:
            self.decode(spans)
        LLAMA_CPP.set_embeddings(self.handle, True)
