"""Vocabularies of the SentencePiece kind: pieces with scores, and tokens for the bytes of other characters.

llama.cpp joins two neighbours whenever their texts together are a token, those with the highest score first,
the leftmost of several. BPE with byte fallback in tokenizer.json joins by ranks of pairs. Both give the same
tokens if each pair that makes a token is a merge, and if the merges that make one token follow each other:
the score is then the token's place among the merges. This is checked for every vocabulary.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind
from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import Field
from ...files.gguf.metadata import SPACE_ONCE
from .token_table import Entry, added_tokens, refuse_options, stripping_fields, table_fields, token_table

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
    """Convert a BPE model with byte fallback in tokenizer.json to metadata of a SentencePiece vocabulary.

    Raises:
        FileError: llama.cpp could divide a text into other tokens.
    """
    model, added = tokenizer["model"], tokenizer.get("added_tokens") or []
    refuse_options(path, "the model", model, ("ignore_merges",))
    prefix, once = _space_prefix(path, tokenizer)
    for token in added if prefix else ():
        if not token.get("special"):
            refuse_options(path, f"the added token {token['content']!r}", token, ("normalized",))
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    if any(len(merge) != 2 for merge in merges):
        raise FileError(f"{path}: a merge does not join two tokens")
    places = _places(path, merges)
    # Published Gemmas have a special token for images beyond the rows of their text models.
    inside = [token for token in added if not (token.get("special") and token["id"] >= vocab)]
    tokens, types = token_table(path, _entries(path, model, inside, places), vocab)
    present = {text for text, kind in zip(tokens, types, strict=True) if kind == TokenType.BYTE}
    if missing := [piece for piece in BYTE_PIECES if piece not in present]:
        raise FileError(f"{path}: has no byte token {missing[0]!r}")
    _check_joins(path, tokens, types, set(merges))
    last = max(places.values(), default=0)  # also of tokens that no merge gives
    scores = [float(-places.get(token, last)) for token in tokens]
    fields = {
        "tokenizer.ggml.model": Field("llama", Kind.STRING),
        "tokenizer.ggml.pre": Field("default", Kind.STRING),
        **table_fields(tokens, types),
        "tokenizer.ggml.scores": Field(scores, Kind.ARRAY, Kind.FLOAT32),
        "tokenizer.ggml.add_space_prefix": Field(prefix, Kind.BOOL),
        **({SPACE_ONCE: Field(True, Kind.BOOL)} if once else {}),
    }
    return fields | stripping_fields(inside)


def _space_prefix(path: Path, tokenizer: Mapping[str, Any]) -> tuple[bool, bool]:
    key = (
        tuple(_step(step) for step in _steps(tokenizer.get("normalizer"), "normalizers")),
        tuple(_step(step) for step in _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")),
    )
    if key not in _SPACES:
        raise FileError(f"{path}: unknown treatment of spaces with byte fallback: {key[0]!r}, {key[1]!r}")
    return _SPACES[key]


def _steps(step: Mapping[str, Any] | None, inner: str) -> Iterable[Mapping[str, Any]]:
    return [] if step is None else step.get(inner, [step])


def _step(step: Mapping[str, Any]) -> tuple[Any, ...]:
    match step.get("type"):
        case "Prepend":
            return ("Prepend", step["prepend"])
        case "Replace":
            return ("Replace", step["pattern"].get("String"), step["content"])
        case "Split":
            return ("Split", step["pattern"].get("String"), step["behavior"], bool(step.get("invert")))
        case "Metaspace":
            return ("Metaspace", step["replacement"], step.get("prepend_scheme"), step.get("split", True))
        case other:
            return (other,)


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
    """Place of each token in the order of the merges that make it.

    Raises:
        FileError: the merges of a token do not follow each other, and that changes tokens.
    """
    places: dict[str, int] = {}
    runs = set[str]()
    previous = ""
    for left, right in merges:
        token = left + right
        if places.setdefault(token, len(places)) != len(places) - 1 and token != previous:
            if len(set(token)) > 1:
                raise FileError(f"{path}: other merges stand between those of the token {token!r}")
            runs.add(token[0])
        previous = token
    for character in sorted(runs):
        mine = [(rank, pair) for rank, pair in enumerate(merges) if character in pair[0] + pair[1]]
        _check_runs(path, character, mine, places)
    return places


def _check_runs(
    path: Path, character: str, merges: Iterable[tuple[int, tuple[str, str]]], places: Mapping[str, int]
) -> None:
    """Check that a run of one character, of any length, is divided alike by merges and by places.

    Its merges must come before all others of this character: a run is then divided on its own.
    """
    ranks, others = dict[tuple[int, int], int](), list[int]()
    for rank, (left, right) in merges:
        if set(left + right) == {character}:
            ranks.setdefault((len(left), len(right)), rank)
        else:
            others.append(rank)
    by_place = {pair: places[character * sum(pair)] for pair in ranks}
    lengths = range(2, 3 * max(map(sum, ranks)))
    alike = all(_divide(length, ranks) == _divide(length, by_place) for length in lengths)
    if not alike or max(ranks.values()) > min(others, default=1 << 32):
        raise FileError(f"{path}: the merges of runs of {character!r} have an order that a GGUF cannot have")


def _divide(length: int, ranks: Mapping[tuple[int, int], int]) -> list[int]:
    """The lengths of the tokens of a run, by BPE."""
    symbols = [1] * length
    while found := [(ranks[pair], at) for at, pair in enumerate(pairwise(symbols)) if pair in ranks]:
        at = min(found)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return symbols


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
