"""The tokens of a model by those of its reference: all of them, or the ones that a trimmed file keeps.

A text is read in the reference's tokens. In a trimmed file each dropped token becomes the pieces that its
tokenizer makes of that token's text, so both models have read the same text at every position of the
reference's. The file's own tokenizer rarely divides the rest of the word otherwise than this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...convert.vocabulary.tokenizer_tables import TokenizerTables
from ...errors import FileError
from ...files.gguf.header import Header
from ...stats import Doubles
from ...stats.intervals import Interval, grouped_mean

_TOKENS = "tokenizer.ggml.tokens"


class TokenMap:
    """Maps the tokens of a model to those of its reference.

    Attributes:
        ids: the reference's id of each token of the model, (kept,).
        of: number of the reference's tokens.
    """

    def __init__(self, reference: Header, model: Header) -> None:
        """Compare the vocabularies of two files.

        Raises:
            FileError: the model has a token that the reference lacks.
        """
        ours, theirs = reference.metadata[_TOKENS], model.metadata[_TOKENS]
        self.of = len(ours)
        # By their places if there are as many, since a vocabulary may have a text twice.
        known = {text: token for token, text in enumerate(ours)} if len(theirs) < len(ours) else {}
        self.ids = np.array([known.get(text, token) for token, text in enumerate(theirs)])
        for token, (text, original) in enumerate(zip(theirs, self.ids.tolist(), strict=True)):
            if original >= len(ours) or ours[original] != text:
                raise FileError(
                    f"{model.path}: token {token} of its {len(theirs)} is {text!r}, which is not one of the "
                    f"{len(ours)} of {reference.path}, or is another one there"
                )
        self._new_ids: Mapping[int, int] = {old: new for new, old in enumerate(self.ids.tolist())}
        self._texts: Sequence[str] = ours
        self._model = model

    @property
    def complete(self) -> bool:
        """Whether the model has all tokens of the reference."""
        return len(self.ids) == self.of

    @property
    def expansion(self) -> int:
        """How much longer than in the reference's tokens a text may reasonably be."""
        return 1 if self.complete else 8

    def keeps(self, token: int) -> bool:
        """Whether the model has a token of the reference."""
        return token in self._new_ids

    def rewrite(self, tokens: Sequence[int]) -> tuple[tuple[int, ...], Sequence[int]]:
        """Write a text in the model's tokens; also the index of the last of them for each given token."""
        if self.complete:
            return tuple(tokens), range(len(tokens))
        parts = [
            (self._new_ids[token],) if self.keeps(token) else self._tables.split(self._texts[token])
            for token in tokens
        ]
        ends = np.cumsum([len(part) for part in parts]) - 1
        return tuple(piece for part in parts for piece in part), ends.tolist()

    @cached_property
    def _tables(self) -> TokenizerTables:
        return TokenizerTables.from_fields(self._model.fields, str(self._model.path))


@dataclass(frozen=True, slots=True)
class VocabularyCoverage:
    """Coverage of a trimmed vocabulary on held-out texts."""

    kept: int
    of: int
    unchanged: Interval  # share of the scored tokens of the texts that are kept
    outside: Interval  # mean probability that the reference gives to tokens that the file dropped


def measure_coverage(
    tokens: TokenMap, scored: Sequence[int], outside: Doubles, passages: NDArray[np.int64]
) -> VocabularyCoverage | None:
    """Summarize what a vocabulary covers; None if the file keeps all tokens.

    Each position has its scored token, by the reference's id, the probability outside, and its passage.
    """
    if tokens.complete:
        return None
    kept = np.array([float(tokens.keeps(token)) for token in scored])  # (positions,)
    unchanged, outside_mean = grouped_mean(kept, passages), grouped_mean(outside, passages)
    return VocabularyCoverage(len(tokens.ids), tokens.of, unchanged, outside_mean)
