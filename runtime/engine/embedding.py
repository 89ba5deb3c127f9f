"""Embeddings of texts: tokens, groups of texts that are computed at once, and the length of the vectors."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ...errors import PromptLengthError, RequestError
from ..llama.embedding_context import EmbeddingContext
from ..llama.model import LoraAdapter
from ..validation import check_integer

if TYPE_CHECKING:
    from ...stats.arrays import Floats

Tokens: TypeAlias = tuple[int, ...]
Text: TypeAlias = str | Sequence[int]
ONLY_EMBEDS = (
    "the model is made for embeddings (/v1/embeddings, /api/embed, Engine.embed()) and answers nothing; "
    "take one that continues texts, of those that `thirteen models` lists"
)
NO_EMBEDDINGS = (
    "the model is not made for embeddings; take a GGUF of one that is, such as nomic-embed-text-v1.5, "
    "Qwen3-Embedding-0.6B or embeddinggemma-300m"
)
_TOKENS = 512  # of several texts that are computed at once; more are no faster, and take more memory


class Embedder:
    """Makes the embeddings of one engine; one thread at a time calls embed()."""

    def __init__(self, context: EmbeddingContext, hint: str) -> None:
        """Take a context, which stays its owner's; `hint` is the end of the error about a long text."""
        self._context, self._model, self._hint = context, context.model, hint

    def encode(self, texts: Sequence[Text], *, truncate: bool) -> list[Tokens]:
        """Tokens of texts; see Engine.embedding_tokens()."""
        if isinstance(texts, str):
            raise RequestError("embeddings are made of several texts: give a list")
        return [self._encode(number, text, truncate=truncate) for number, text in enumerate(texts)]

    def _encode(self, number: int, text: Text, *, truncate: bool) -> Tokens:
        most, end = self._context.settings.context, tuple[int, ...]()
        if isinstance(text, str):
            tokens = tuple(self._model.tokenize(text, special=False, bos=True))
            end = tuple(self._model.end)
        else:
            self._model.check_tokens(tokens := tuple(text))
        if not tokens + end:
            raise RequestError(f"text {number} is empty")
        if (count := len(tokens) + len(end)) > most and not truncate:
            raise PromptLengthError(
                f"text {number} has {count} tokens, and the context holds {most}; {self._hint}; "
                "with `truncate` its end is cut off"
            )
        return tokens[: most - len(end)] + end

    def embed(self, texts: Sequence[Tokens], dimensions: int | None, adapter: LoraAdapter | None) -> "Floats":
        """Vectors of texts, (texts, width); see Engine.embed()."""
        width = self._context.width
        check_integer("dimensions", dimensions := width if dimensions is None else dimensions, 1, width)
        self._context.set_adapter(adapter)
        try:
            rows = [self._context.embed(group)[:, :dimensions] for group in self._groups(texts)]
        finally:
            self._context.set_adapter(None)  # the caller may then close the adapter
        vectors: Floats = np.concatenate([np.empty((0, dimensions), np.float32), *rows])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def _groups(self, texts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        """The texts in groups that are computed at once; a long one is alone."""
        group, total = list[Tokens](), 0
        most, slots = min(_TOKENS, self._context.settings.context), self._context.settings.slots
        for text in texts:
            if group and (total + len(text) > most or len(group) == slots):
                yield group
                group, total = [], 0
            group.append(text)
            total += len(text)
        if group:
            yield group
