"""The tables of a tokenizer: tokens, types, merges, and the tokens that no file can lack.

A SentencePiece vocabulary has no list of merges: llama.cpp joins two neighbours if their texts together are a
token, those with the highest score first. Its merges are therefore all pairs that make a token, by score.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from gguf import TokenType
from gguf.vocab import bytes_to_unicode
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field
from ...files.json_file import layout_errors
from ..source.tokenizer import BYTE_PIECES, KNOWN_END_TOKENS, SPACE

PREFIX = "tokenizer.ggml."
# The characters that stand for the bytes 0 to 255 in a byte-level vocabulary.
BYTE_TEXTS = tuple(text for _, text in sorted(bytes_to_unicode().items()))
TEXT_BYTES = {text: byte for byte, text in enumerate(BYTE_TEXTS)}


@dataclass(frozen=True, eq=False)
class TokenizerTables:
    """The tables of a tokenizer, byte-level BPE or SentencePiece, as a GGUF holds them."""

    tokens: tuple[str, ...]  # in byte-level characters, or with ▁ for spaces
    types: NDArray[np.int32]  # (tokens,), of gguf.TokenType
    merges: NDArray[np.int32]  # (merges, 3): ids of the left part, the right part and the result, by rank
    pre_tokenizer: str  # llama.cpp's name of the splitting rules
    special_ids: Mapping[str, int]  # that the metadata names, such as `bos` and `eos`
    templates: tuple[str, ...]  # for chats
    scores: NDArray[np.float32] | None = None  # (tokens,), of a SentencePiece vocabulary

    @classmethod
    def from_fields(cls, fields: Mapping[str, Field], where: str) -> "TokenizerTables":
        """Read a tokenizer's metadata; FileError if it is neither byte-level BPE nor SentencePiece."""
        values = {key.removeprefix(PREFIX): field.value for key, field in fields.items()}
        with layout_errors(where):
            if (model := values["model"]) not in ("gpt2", "llama"):
                kinds = "byte-level BPE and SentencePiece"
                raise FileError(f"{where}: the tokenizer is {shorten(model)}; only {kinds} can be trimmed")
            tokens, count = values["tokens"], len(values["tokens"])
            ids = {text: i for i, text in enumerate(tokens)}
            types = np.array(values["token_type"], np.int32).reshape(count)
            scores = None
            if model == "gpt2":
                merges = _merge_ids(values["merges"], ids)
            else:
                scores = np.array(values["scores"], np.float32).reshape(count)
                merges = _scored_merges(tokens, types, scores, ids)
            return cls(
                tokens=tuple(tokens),
                types=types,
                merges=merges,
                pre_tokenizer=str(values.get("pre", "default")),
                special_ids={
                    key.removesuffix("_token_id"): range(count).index(i)
                    for key, i in values.items()
                    if key.endswith("_token_id")
                },
                templates=tuple(
                    text
                    for key, text in values.items()
                    if key.startswith("tokenizer.chat_template") and isinstance(text, str)
                ),
                scores=scores,
            )

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each token by its text."""
        return {text: i for i, text in enumerate(self.tokens)}

    @cached_property
    def sha256(self) -> str:
        """Hash of tokens, types, merges and the pre-tokenizer's name."""
        digest = hashlib.sha256()
        for text in (self.pre_tokenizer, *self.tokens):
            data = text.encode("utf-8", "surrogateescape")
            digest.update(len(data).to_bytes(4, "little") + data)
        digest.update(self.types.astype("<i4").tobytes())
        digest.update(self.merges.astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def byte_ids(self) -> dict[int, int]:
        """Id of the token of each single byte; a few published vocabularies lack some control characters."""
        texts = BYTE_TEXTS if self.scores is None else BYTE_PIECES
        return {byte: self.ids[text] for byte, text in enumerate(texts) if text in self.ids}

    def text(self, token: int) -> str | None:
        """The text of a normal or user-defined token; None if it is not a whole number of characters."""
        text = self.tokens[token]
        if self.scores is None:
            return token_text(text)
        return text.replace(SPACE, " ") if self.types[token] == TokenType.NORMAL else text

    @cached_property
    def required_ids(self) -> frozenset[int]:
        """Tokens that every file needs: bytes, ends, those that metadata or a chat template names."""
        special = np.flatnonzero((self.types == TokenType.CONTROL) | (self.types == TokenType.USER_DEFINED))
        in_templates = (i for i in special.tolist() if any(self.tokens[i] in text for text in self.templates))
        ends = (self.ids[text] for text in KNOWN_END_TOKENS if text in self.ids)
        return frozenset((*self.byte_ids.values(), *self.special_ids.values(), *ends, *in_templates))

    @cached_property
    def ranks(self) -> dict[tuple[int, int], tuple[float, int]]:
        """Rank and result of each merge by the ids of its parts; of a repeated merge the first counts."""
        ranks: dict[tuple[int, int], tuple[float, int]] = {}
        scores = None if self.scores is None else self.scores.tolist()
        for rank, (left, right, joined) in enumerate(self.merges.tolist()):
            ranks.setdefault((left, right), (-scores[joined] if scores else rank, joined))
        return ranks

    def built_from(self, token: int) -> list[int]:
        """The results of BPE over a token's own text, in order, the token itself last.

        Empty for a single byte or character, and for a token that merges never give: a control token, or a
        word that only `ignore_merges` takes. In a SentencePiece vocabulary, the characters come first.
        """
        ids, text = self.ids, self.tokens[token]
        if any(character not in ids for character in text) or len(text) < 2:
            return []
        if self.scores is not None and self.types[token] != TokenType.NORMAL:
            return []
        symbols = [ids[character] for character in text]
        characters = [] if self.scores is None else list(dict.fromkeys(symbols))
        results = list(self._merge(symbols))
        return characters + results if len(symbols) == 1 else []

    def split(self, text: str) -> tuple[int, ...]:
        """Divide a text into tokens by merges alone. Bytes without a token are left out, as in llama.cpp."""
        if self.scores is not None:
            parts = (self._character(character) for character in text.replace(" ", SPACE))
            symbols = [symbol for part in parts for symbol in part]
        else:
            if not set(text) <= TEXT_BYTES.keys():
                text = "".join(BYTE_TEXTS[byte] for byte in text.encode("utf-8", "surrogateescape"))
            symbols = [self.ids[character] for character in text if character in self.ids]
        for _ in self._merge(symbols):
            pass
        return tuple(symbols)

    def _character(self, character: str) -> list[int]:
        """A character of a SentencePiece vocabulary as a token, or as those of its bytes."""
        if character in self.ids:
            return [self.ids[character]]
        return [self.byte_ids[byte] for byte in character.encode("utf-8", "surrogateescape")]

    def _merge(self, symbols: list[int]) -> Iterator[int]:
        """Apply BPE to a list of tokens in place; yields the result of each merge."""
        while len(symbols) > 1:
            pairs = [self.ranks.get(pair) for pair in pairwise(symbols)]
            found = [(merge[0], at, merge[1]) for at, merge in enumerate(pairs) if merge]
            if not found:
                return
            _, at, joined = min(found)  # the leftmost of the lowest rank
            symbols[at : at + 2] = [joined]
            yield joined

    def merges_among(self, tokens: Iterable[int]) -> NDArray[np.int32]:
        """The merges whose parts and result are all in `tokens`, in the original order, (kept, 3)."""
        kept = np.zeros(len(self.tokens), bool)
        kept[list(tokens)] = True
        return self.merges[kept[self.merges].all(axis=1)]


def token_text(token: str) -> str | None:
    """The text of a token in byte-level characters; None if it is not a whole number of characters."""
    try:
        return bytes(TEXT_BYTES[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def _merge_ids(merges: Sequence[str], ids: Mapping[str, int]) -> NDArray[np.int32]:
    places = (merge.find(" ", 1) for merge in merges)  # as in llama.cpp
    pairs = ((merge[:at], merge[at + 1 :]) for merge, at in zip(merges, places, strict=True))
    triples = [(ids[left], ids[right], ids[left + right]) for left, right in pairs]
    return np.array(triples, np.int32).reshape(-1, 3)


def _scored_merges(
    tokens: Sequence[str], types: NDArray[np.int32], scores: NDArray[np.float32], ids: Mapping[str, int]
) -> NDArray[np.int32]:
    """All pairs that make a token, by its score; user-defined tokens are found before anything is joined."""
    triples = [
        (ids[text[:at]], ids[text[at:]], token)
        for token, text in enumerate(tokens)
        if types[token] != TokenType.USER_DEFINED
        for at in range(1, len(text))
        if text[:at] in ids and text[at:] in ids
    ]
    merges = np.array(triples, np.int32).reshape(-1, 3)
    return merges[np.argsort(-scores[merges[:, 2]], kind="stable")]
