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
from ...convert.vocabulary.vocabulary_list import read_vocabulary
from ...errors import FileError
from ...files.gguf.header import Header, read_header
from ...stats.arrays import Doubles
from ...stats.bootstrap import grouped_mean
from ...stats.interval import Interval

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
        self.ids = _reference_ids(reference, model)
        for token, original in enumerate(self.ids.tolist()):
            if theirs[token] != ours[original]:
                raise FileError(
                    f"{model.path}: token {token} of its vocabulary is {theirs[token]!r}, "
                    f"in {reference.path} it is {ours[original]!r}"
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
        header = read_header(self._model.path)  # with the merges, which engines leave out
        return TokenizerTables.from_fields(header.fields, str(header.path))


def check_same_vocabulary(one: Header, other: Header) -> None:
    """Raise FileError if two files have different tokens."""
    ours, theirs = one.metadata[_TOKENS], other.metadata[_TOKENS]
    if len(ours) != len(theirs):
        raise FileError(
            f"{other.path}: its vocabulary has {len(theirs)} tokens, that of {one.path} {len(ours)}"
        )
    TokenMap(one, other)


def _reference_ids(reference: Header, model: Header) -> NDArray[np.int64]:
    """The reference's id of each token of the model, by the ids of the full vocabulary."""
    ours, theirs = read_vocabulary(reference), read_vocabulary(model)
    counts = [len(header.metadata[_TOKENS]) for header in (reference, model)]
    if counts[0] == counts[1]:
        return np.arange(counts[0])
    of, full = (ours.of, ours.tokens) if ours else (counts[0], range(counts[0]))
    ids, why = {original: token for token, original in enumerate(full)}, "and none is a part of the other"
    if theirs and theirs.of == of:
        missing = [token for token in theirs.tokens if token not in ids]
        if not missing:
            return np.array([ids[token] for token in theirs.tokens])
        why = f"which lacks token {missing[0]}"
    raise FileError(
        f"{model.path}: its vocabulary has {counts[1]} tokens, that of {reference.path} {counts[0]}, {why}"
    )


@dataclass(frozen=True, slots=True)
class VocabularyCoverage:
    """Coverage of a trimmed vocabulary on held-out texts.

    Attributes:
        kept: number of tokens in the file.
        of: number of tokens in the reference.
        unchanged: share of the scored tokens of the texts that are kept.
        outside: mean probability that the reference gives to tokens that the file dropped.
    """

    kept: int
    of: int
    unchanged: Interval
    outside: Interval


def measure_coverage(
    tokens: TokenMap, scored: Sequence[int], outside: Doubles, passages: NDArray[np.int64]
) -> VocabularyCoverage | None:
    """Summarize what a vocabulary covers; None if the file keeps all tokens.

    Args:
        tokens: the file's tokens.
        scored: the scored tokens of the texts, by the reference's ids, (positions,).
        outside: probability outside at the position before each, (positions,).
        passages: passage of each position, (positions,).
    """
    if tokens.complete:
        return None
    kept = np.array([float(tokens.keeps(token)) for token in scored])  # (positions,)
    unchanged, outside_mean = grouped_mean(kept, passages), grouped_mean(outside, passages)
    return VocabularyCoverage(len(tokens.ids), tokens.of, unchanged, outside_mean)
