"""A tokenizer or a vocabulary list that cannot be applied is refused in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType as Kind
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList, read_vocabulary, vocabulary_fields
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, Header

HASH = "0" * 64


def test_a_tokenizer_of_another_kind_is_refused(base):
    fields = open_checkpoint(base("llama")).tokenizer

    def check(message: str, **changes: Any) -> None:
        changed = fields | {
            f"tokenizer.ggml.{name}": replace(fields[f"tokenizer.ggml.{name}"], value=value)
            for name, value in changes.items()
        }
        with pytest.raises(FileError, match=message):
            TokenizerTables.from_fields(changed, "BASE")

    check("BASE: the tokenizer is 'bert'", model="bert")
    check("BASE: unexpected layout .*cannot reshape", token_type=[1])
    check("BASE: unexpected layout .*272 is not in range", eos_token_id=272)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (Field(5, Kind.UINT32), "'tokenizer.ggml.tokens' is of type UINT32, not ARRAY"),
        (Field(["a"] * 3, Kind.ARRAY, Kind.STRING), "has 2 ids, not 3 ascending ones below 5"),
        (None, "'tokenizer.ggml.tokens' is missing"),
    ],
)
def test_a_list_in_metadata_that_is_not_of_the_files_tokens_is_refused(tokens, message):
    """A number in place of the tokens ended in a TypeError."""
    fields = vocabulary_fields(VocabularyList((0, 2), 5, HASH))
    fields |= {"tokenizer.ggml.tokens": tokens} if tokens else {}
    with pytest.raises(FileError, match=message):
        read_vocabulary(Header(Path("a.gguf"), 3, fields, {}, 0))
