"""Vocabularies of the SentencePiece kind: pieces with scores, and tokens for the bytes of other characters.

llama.cpp joins two neighbours whenever their texts together are a token, those with the highest score first,
the leftmost of several. BPE with byte fallback in tokenizer.json joins by ranks of pairs. Both give the same
tokens if each pair that makes a token is a merge, and if the merges that make one token follow each other:
the score is then the token's place among the merges. This is checked for every vocabulary.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind
from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import SPACE_ONCE, Field
from .pre_tokenizer import rules_of
from .token_table import Entry, added_tokens, refuse_options, stripping_fields, token_table

SPACE = "▁"  # stands for a space in a piece
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_BYTES = frozenset(BYTE_PIECES)
_TO_SPACE = ("Replace", " ", SPACE)
_WORD_BY_WORD = ("Split", " ", "MergedWithPrevious", False)  # does nothing: no space is left
# (normalizer, pre-tokenizer) -> whether a space is put before a text, and only if it has none
_SPACES = {
    ((_TO_SPACE,), ()): (False, False),
    ((_TO_SPACE,), (_WORD_BY_WORD,)): (False, False),
    ((("Prepend", SPACE), _TO_SPACE), ()): (True, False),
    ((), (("Metaspace", SPACE, "never", False),)): (False, False),
    # `first` and `always` differ after special tokens, where the chat templates write a space themselves.
    ((), (("Metaspace", SPACE, "first", False),)): (True, True),
    ((), (("Metaspace", SPACE, "always", False),)): (True, True),
}
Merges = Sequence[tuple[str, str]]


def byte_fallback_fields(path: Path, tokenizer: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    """A SentencePiece vocabulary; FileError if llama.cpp could divide a text into other tokens."""
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    refuse_options(path, "the model", model, ("ignore_merges",))
    spaces = (rules_of(tokenizer.get("normalizer")), rules_of(tokenizer.get("pre_tokenizer")))
    if spaces not in _SPACES:
        raise FileError(
            f"{path}: unknown treatment of spaces with byte fallback: {spaces[0]!r}, {spaces[1]!r}"
        )
    prefix, once = _SPACES[spaces]
    for token in added if prefix else ():
        if not token.get("special"):
            refuse_options(path, f"the added token {token['content']!r}", token, ("normalized",))
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    merges = [(left, right) for left, right in pairs]
    places = _places(path, merges)
    # Published Gemmas have a special token for images beyond the rows of their text models.
    inside = [token for token in added if not (token.get("special") and token["id"] >= vocab)]
    table = token_table(path, _entries(path, model, inside, places), vocab)
    tokens, types = (field.value for field in table.values())
    present = {text for text, kind in zip(tokens, types, strict=True) if kind == TokenType.BYTE}
    if missing := [piece for piece in BYTE_PIECES if piece not in present]:
        raise FileError(f"{path}: has no byte token {missing[0]!r}")
    _check_joins(path, tokens, types, set(merges))
    last = max(places.values(), default=0)  # also of tokens that no merge gives
    scores = [float(-places.get(token, last)) for token in tokens]
    fields = {
        "tokenizer.ggml.model": Field("llama", Kind.STRING),
        "tokenizer.ggml.pre": Field("default", Kind.STRING),
        **table,
        "tokenizer.ggml.scores": Field(scores, Kind.ARRAY, Kind.FLOAT32),
        "tokenizer.ggml.add_space_prefix": Field(prefix, Kind.BOOL),
        **({SPACE_ONCE: Field(True, Kind.BOOL)} if once else {}),
    }
    return fields | stripping_fields(inside)


def _entries(
    path: Path, model: Mapping[str, Any], added: Iterable[Mapping[str, Any]], places: Container[str]
) -> Iterator[Entry]:
    unknown = model.get("unk_token")
    for text, i in model["vocab"].items():
        yield text, i, TokenType.BYTE if text in _BYTES else TokenType.NORMAL
    for text, i, kind in added_tokens(path, added):
        if text == unknown:
            yield text, i, TokenType.UNKNOWN
        elif kind is TokenType.USER_DEFINED and SPACE in text and text in places:
            yield text, i, TokenType.NORMAL  # spaces in a text become this by merges alone
        else:
            yield text, i, kind


def _places(path: Path, merges: Merges) -> dict[str, int]:
    """Place of each token in the order of the merges that make it, which must follow each other.

    Those of a run of one character need not: Gemma's merges of spaces begin with the longest.
    """
    places: dict[str, int] = {}
    for left, right in merges:
        token = left + right
        if places.setdefault(token, len(places)) != len(places) - 1 and len(set(token)) > 1:
            raise FileError(f"{path}: other merges stand between those of the token {token!r}")
    return places


def _check_joins(
    path: Path, tokens: Sequence[str], types: Sequence[int], merges: Container[tuple[str, str]]
) -> None:
    """Check that whatever llama.cpp would join is a merge: it joins control tokens too."""
    known = {*tokens, *"".join(tokens)}  # a character is joined with or without a token of its own
    for token, kind in zip(tokens, types, strict=True):
        if kind == TokenType.USER_DEFINED and SPACE not in token:
            continue  # found in a text before anything is joined
        for at in range(1, len(token)):
            if token[:at] not in known or token[at:] not in known:
                continue
            pair = (token[:at], token[at:])
            if kind != TokenType.NORMAL or pair not in merges:
                raise FileError(
                    f"{path}: llama.cpp would join {pair[0]!r} and {pair[1]!r} to the token {token!r}, "
                    "but no merge does"
                )
