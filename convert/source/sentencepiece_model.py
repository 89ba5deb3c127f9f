"""Reader of SentencePiece models (tokenizer.model) of the BPE kind.

The file is a protobuf message, `ModelProto` of sentencepiece_model.proto.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import TokenType

from ...errors import FileError
from ...files.gguf.header import Field
from ...files.json_file import read_bounded
from .scored_pieces import SPACE, piece_fields, space_fields
from .token_table import Entry, added_tokens, refuse_options, stripping_fields, token_table

FILE_NAME = "tokenizer.model"
_BYTES_MAX = 1 << 24  # published ones have 4 MB at most
_TRAINER, _NORMALIZER, _PIECE = 2, 3, 1
_BPE = 2


def sentencepiece_fields(path: Path, config: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    """Convert a SentencePiece model to GGUF metadata.

    Args:
        path: the model.
        config: tokenizer_config.json, which may add tokens.
        vocab: number of rows of the embedding.

    Raises:
        FileError: the file is damaged, or has a feature that llama.cpp lacks.
    """
    data = read_bounded(path, _BYTES_MAX)
    try:
        return _fields(path, data, config, vocab)
    except (LookupError, TypeError, AttributeError, ValueError, struct.error) as failure:
        reason = f"{type(failure).__name__}: {failure}"
        raise FileError(f"{path}: not a SentencePiece model, or damaged ({reason})") from None


def _fields(path: Path, data: bytes, config: Mapping[str, Any], vocab: int) -> dict[str, Field]:
    trainer, normalizer, pieces = dict[int, Any](), dict[int, Any](), list[Entry]()
    scores: dict[str, float] = {}
    for number, value in _message(data):
        if number == _PIECE:
            piece = dict(_message(value))
            text, kind = piece[1].decode(), TokenType(piece.get(3, 1))  # with the numbers of a GGUF
            if len(pieces) == vocab:
                raise FileError(f"{path}: has more pieces than the embedding's {vocab} rows")
            pieces.append((text, len(pieces), kind))
            if kind is TokenType.NORMAL:
                (scores[text],) = struct.unpack("<f", piece.get(2, bytes(4)))
        elif number in (_TRAINER, _NORMALIZER):
            (trainer if number == _TRAINER else normalizer).update(_message(value))
    if not (pieces and trainer and normalizer):
        raise FileError(f"{path}: not a SentencePiece model, or damaged (its end is missing)")
    if not all(map(math.isfinite, scores.values())):
        raise FileError(f"{path}: damaged (a score is not a finite number)")
    prefix = bool(normalizer.get(3, 1))
    _check(path, trainer, normalizer)
    # A user-defined piece is found in a text before anything is joined, also one of spaces. With a prefix,
    # llama.cpp puts a space after it too.
    pieces = [
        (text.replace(SPACE, " ") if kind is TokenType.USER_DEFINED else text, i, kind)
        for text, i, kind in pieces
    ]
    added = [token | {"id": int(i)} for i, token in (config.get("added_tokens_decoder") or {}).items()]
    known = {(text, i) for text, i, _ in pieces}
    new = [token for token in added if (token["content"], token["id"]) not in known]
    tokens, types = token_table(path, [*pieces, *added_tokens(path, new)], vocab)
    return piece_fields(path, tokens, types, scores) | space_fields(prefix) | stripping_fields(added)


def _check(path: Path, trainer: Mapping[int, Any], normalizer: Mapping[int, Any]) -> None:
    """Refuse what llama.cpp lacks; the numbers are those of the fields in the .proto file."""
    if (kind := trainer.get(3, 1)) != _BPE:
        name = {1: "Unigram", 3: "Word", 4: "Char"}.get(kind, kind)
        raise FileError(f"{path}: the model is of the kind {name}; only BPE is supported")
    options = {
        "a normalizer": normalizer.get(2) and normalizer.get(1, b"").decode(),
        "remove_extra_whitespaces": bool(normalizer.get(4, 1)),
        "treat_whitespace_as_suffix": bool(trainer.get(24, 0)),
    }
    refuse_options(path, "the model", options, options)
    if not normalizer.get(5, 1):
        raise FileError(f"{path}: the model has escape_whitespaces False, which a GGUF cannot represent")


def _message(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an integer, or bytes.

    Raises:
        ValueError: it is damaged.
    """
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 in (0, 2):
            size, at = _varint(data, at)
        if key & 7 == 0:
            yield key >> 3, size
            continue
        if (not size and key & 7 != 2) or at + size > len(data):
            raise ValueError(f"a field of type {key & 7} at byte {start} of {len(data)} does not end there")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of variable length, and where it ends."""
    value = 0
    for place in range(10):
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise ValueError(f"an integer of more than 10 bytes at byte {at}")
