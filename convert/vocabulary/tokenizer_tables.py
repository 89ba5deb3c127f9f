"""The tables of a tokenizer: tokens, types, merges, and the tokens that no file can lack.

A SentencePiece vocabulary has no list of merges: llama.cpp joins two neighbours if their texts together are a
token, those with the highest score first. Its merges are therefore all pairs that make a token, by score.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from gguf import GGUFValueType, TokenType
from gguf.vocab import bytes_to_unicode
from numpy.typing import NDArray

from ...errors import FileError, shorten
from ...files.gguf.header import Field
from ..source.scored_pieces import BYTE_PIECES, SPACE
from ..source.tokenizer import KNOWN_END_TOKENS

PREFIX = "tokenizer.ggml."
_ARRAY, _STRING, _INT32 = GGUFValueType.ARRAY, GGUFValueType.STRING, GGUFValueType.INT32
_FLOAT32 = GGUFValueType.FLOAT32
_TOKEN_MAX = 4096  # characters: dividing a token takes their square
# The characters that stand for the bytes 0 to 255 in a byte-level vocabulary.
BYTE_TEXTS = tuple(text for _, text in sorted(bytes_to_unicode().items()))
TEXT_BYTES = {text: byte for byte, text in enumerate(BYTE_TEXTS)}


@dataclass(frozen=True, eq=False)
class TokenizerTables:
    """The tables of a tokenizer, byte-level BPE or SentencePiece, as a GGUF holds them.

    Attributes:
        where: the base, for errors.
        tokens: text of each token, in byte-level characters, or with ▁ for spaces.
        types: `gguf.TokenType` of each token, (tokens,).
        merges: ids of the left part, the right part and the result of each merge, by rank, (merges, 3).
        pre_tokenizer: llama.cpp's name of the splitting rules.
        special_ids: ids that the metadata names, such as `bos` and `eos`.
        templates: the chat templates.
        scores: of each token of a SentencePiece vocabulary, (tokens,); None for byte-level BPE.
    """

    where: str
    tokens: tuple[str, ...]
    types: NDArray[np.int32]
    merges: NDArray[np.int32]
    pre_tokenizer: str
    special_ids: Mapping[str, int]
    templates: tuple[str, ...]
    scores: NDArray[np.float32] | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, Field], where: str) -> "TokenizerTables":
        """Read the tables from a tokenizer's metadata, as `Checkpoint.tokenizer` gives it.

        Raises:
            FileError: the tokenizer is neither byte-level BPE nor SentencePiece, or its tables contradict
                each other.
        """
        model = fields.get(f"{PREFIX}model", Field(None, _STRING)).value
        if model not in ("gpt2", "llama"):
            kinds = "byte-level BPE and SentencePiece"
            raise FileError(f"{where}: the tokenizer is {shorten(model)}; only {kinds} can be trimmed")
        tokens = _array(fields, "tokens", _STRING, where)
        types = _array(fields, "token_type", _INT32, where, len(tokens))
        scored = f"{PREFIX}scores" in fields
        scores = _array(fields, "scores", _FLOAT32, where, len(tokens)) if scored else None
        ids = {text: i for i, text in enumerate(tokens)}
        if len(ids) != len(tokens):
            raise FileError(f"{where}: {len(tokens) - len(ids)} tokens have the text of another token")
        if (longest := max(map(len, tokens), default=0)) > _TOKEN_MAX:
            raise FileError(f"{where}: a token of {longest} characters; at most {_TOKEN_MAX} are read")
        needed = (
            enumerate(BYTE_PIECES) if model == "llama" else ((byte, chr(byte)) for byte in range(33, 127))
        )
        if missing := [byte for byte, text in needed if text not in ids]:
            raise FileError(f"{where}: no token for the byte {missing[0]}; the vocabulary cannot be trimmed")
        if model == "gpt2":
            merges, by_score = _merge_ids(_array(fields, "merges", _STRING, where), ids, where), None
        else:
            by_score = np.array(scores or _array(fields, "scores", _FLOAT32, where), np.float32)
            merges = _scored_merges(tokens, types, by_score, ids)
        return cls(
            where=where,
            tokens=tuple(tokens),
            types=np.array(types, np.int32),
            merges=merges,
            pre_tokenizer=str(fields.get(f"{PREFIX}pre", Field("default", _STRING)).value),
            special_ids=_special_ids(fields, len(tokens), where),
            templates=tuple(
                field.value
                for key, field in fields.items()
                if key.startswith("tokenizer.chat_template") and field.type is _STRING
            ),
            scores=by_score,
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
        """Tokens that every file needs.

        These are the single bytes, the tokens that the metadata names, those that end an answer, and the
        control and user-defined tokens whose text a chat template contains.
        """
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
        """The results of the merges that BPE applies to a token's own text, in order.

        The last one is the token itself. The list is empty for a single byte or character, and for a token
        that merges never give: a control token, or a word that only `ignore_merges` takes as a whole. In a
        SentencePiece vocabulary, the token's characters come first: those of byte-level BPE never drop out.
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
        """Divide a text into tokens by merges alone; a text that is no byte-level one is encoded first.

        Bytes without a token are left out, as in llama.cpp.
        """
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

    def missing_parts(self, tokens: Iterable[int]) -> dict[int, int]:
        """The tokens that `tokens` lack to be closed under merges: each with the first that needs it.

        A token whose merges all have kept parts is built from these, which are looked at on their own. BPE
        runs only over the texts of the others.
        """
        kept = self._mask(tokens)
        left, right, joined = self.merges.T
        doubtful = np.unique(joined[kept[joined] & ~(kept[left] & kept[right])])
        missing = dict[int, int]()
        for token in doubtful.tolist():
            for part in self.built_from(token):
                if not kept[part]:
                    missing.setdefault(part, token)
        return missing

    def merges_among(self, tokens: Iterable[int]) -> NDArray[np.int32]:
        """The merges whose parts and result are all in `tokens`, in the original order, (kept, 3)."""
        return self.merges[self._mask(tokens)[self.merges].all(axis=1)]

    def _mask(self, tokens: Iterable[int]) -> NDArray[np.bool_]:
        """Whether each token is among some, (tokens,)."""
        mask = np.zeros(len(self.tokens), bool)
        mask[list(tokens)] = True
        return mask


def token_text(token: str) -> str | None:
    """The text of a token in byte-level characters; None if it is not a whole number of characters."""
    try:
        return bytes(TEXT_BYTES[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def _array(
    fields: Mapping[str, Field], name: str, element: GGUFValueType, where: str, count: int | None = None
) -> Sequence[Any]:
    """An array of a tokenizer's metadata; FileError unless it has this type, and `count` values if given."""
    field = fields.get(PREFIX + name, Field(None, element))
    if (field.type, field.element) != (_ARRAY, element):
        raise FileError(f"{where}: metadata key {PREFIX + name!r} is not an array of {element.name}")
    values: Sequence[Any] = field.value
    if count is not None and len(values) != count:
        raise FileError(f"{where}: {PREFIX}{name} has {len(values)} values for {count} tokens")
    return values


def _merge_ids(merges: Sequence[str], ids: Mapping[str, int], where: str) -> NDArray[np.int32]:
    triples = np.empty((len(merges), 3), np.int32)
    for rank, merge in enumerate(merges):
        at = merge.find(" ", 1)  # as in llama.cpp
        left, right = merge[:at], merge[at + 1 :]
        try:
            triples[rank] = ids[left], ids[right], ids[left + right]
        except KeyError:
            raise FileError(
                f"{where}: the merge {shorten(merge)} does not join two tokens into a third"
            ) from None
    return triples


def _scored_merges(
    tokens: Sequence[str], types: Sequence[int], scores: NDArray[np.float32], ids: Mapping[str, int]
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


def _special_ids(fields: Mapping[str, Field], count: int, where: str) -> dict[str, int]:
    found = {}
    for key, field in fields.items():
        if key.startswith(PREFIX) and key.endswith("_token_id"):
            if type(field.value) is not int or not 0 <= field.value < count:
                raise FileError(
                    f"{where}: metadata key {key!r} is {shorten(field.value)}, not one of {count} tokens"
                )
            found[key.removeprefix(PREFIX).removesuffix("_token_id")] = field.value
    return found
