"""A context that makes one vector of each text."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from ...errors import PromptLengthError, RequestError
from ...files.gguf.model_shape import embeds_in_parts
from ...stats import Floats
from ..options import check_integer
from .context import Context, Span
from .llama_cpp_library import llama_cpp
from .model import Model
from .settings import Settings

Tokens: TypeAlias = tuple[int, ...]
Text: TypeAlias = str | Sequence[int]
_TOKENS = 512  # of several texts that are computed at once; more are no faster, and take more memory


class EmbeddingContext(Context):
    """Computes several texts at once, which share the cells of the context; a vector has `width` numbers.

    The settings are those of embedding_settings().

    llama.cpp pools what it computes at once, and then makes logits of every token of a decoder, too. So where
    the last token's vector is the text's, that token alone is computed in this way, after those before it.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        super().__init__(model, settings)
        self._in_parts = embeds_in_parts(model.header)
        self.width = int(llama_cpp.llama_model_n_embd_out(model.handle))

    def encode(self, texts: Sequence[Text], *, truncate: bool) -> list[Tokens]:
        """Tokens of texts; see Engine.embedding_tokens()."""
        if isinstance(texts, str):
            raise RequestError("embeddings are made of several texts: give a list")
        return [self._encode(number, text, truncate=truncate) for number, text in enumerate(texts)]

    def _encode(self, number: int, text: Text, *, truncate: bool) -> Tokens:
        most, end = self.settings.context, list[int]()
        if isinstance(text, str):
            tokens = self.model.tokenize(text, special=False, bos=True)
            end = self.model.end
        else:
            tokens = [*text]
            self.model.check_tokens(tokens)
        if not tokens + end:
            raise RequestError(f"text {number} is empty")
        if (count := len(tokens) + len(end)) > most and not truncate:
            raise PromptLengthError(
                f"text {number} has {count} tokens, and the context holds {most}; "
                "with `truncate` its end is cut off"
            )
        return (*tokens[: most - len(end)], *end)

    def embed(self, texts: Sequence[Tokens], dimensions: int | None = None) -> Floats:
        """The pooled vectors of texts, (texts, dimensions), each with a length of 1."""
        check_integer("dimensions", dimensions := dimensions or self.width, 1, self.width)
        rows = [self._embed_group(group)[:, :dimensions] for group in self._groups(texts)]
        vectors: Floats = np.concatenate([np.empty((0, dimensions), np.float32), *rows])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def _groups(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """The texts in groups that are computed at once; a long one is alone."""
        group, total = list[Tokens](), 0
        for text in texts:
            full = total + len(text) > min(_TOKENS, self.settings.context)
            if group and (full or len(group) == self.settings.slots):
                yield group
                group, total = [], 0
            group.append(text)
            total += len(text)
        if group:
            yield group

    def _embed_group(self, texts: Sequence[Tokens]) -> Floats:
        try:
            if self._in_parts:
                self._compute_beginnings(texts)
                spans = [Span(slot, len(text) - 1, (text[-1],), 1) for slot, text in enumerate(texts)]
            else:
                spans = [Span(slot, 0, text, len(text)) for slot, text in enumerate(texts)]
            self.decode(spans)
            rows = [llama_cpp.llama_get_embeddings_seq(self.handle, slot) for slot in range(len(texts))]
            return np.stack([np.ctypeslib.as_array(row, (self.width,)) for row in rows])
        finally:
            for slot in range(len(texts)):
                self.clear(slot)

    def _compute_beginnings(self, texts: Sequence[Tokens]) -> None:
        llama_cpp.llama_set_embeddings(self.handle, False)
        for slot, text in enumerate(texts):
            for start in range(0, len(text) - 1, self.settings.batch):
                part = text[start : min(start + self.settings.batch, len(text) - 1)]
                self.decode([Span(slot, start, part, 0)])
        llama_cpp.llama_set_embeddings(self.handle, True)
