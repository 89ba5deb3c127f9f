"""The list of kept tokens in a header whose vocabulary is none."""

from pathlib import Path

import pytest
from gguf import GGUFValueType as Kind
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.convert.vocabulary.vocabulary_metadata import read_vocabulary, vocabulary_fields
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, Header


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (Field(5, Kind.UINT32), "'tokenizer.ggml.tokens' is of type UINT32, not ARRAY"),
        (Field([1, 2], Kind.ARRAY, Kind.UINT32), "'tokenizer.ggml.tokens' is not an array of STRING"),
        (None, "'tokenizer.ggml.tokens' is missing"),
    ],
)
def test_a_list_without_a_vocabulary_is_refused(tokens, message):
    """A number in place of the tokens ended in a TypeError."""
    fields = vocabulary_fields(VocabularyList((0, 2), 5, "ab" * 32))
    fields |= {"tokenizer.ggml.tokens": tokens} if tokens else {}
    with pytest.raises(FileError, match=message):
        read_vocabulary(Header(Path("a.gguf"), 3, fields, {}, 0))
