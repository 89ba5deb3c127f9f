"""The list of kept tokens in a header whose vocabulary is none."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFValueType as Kind
from thirteen.convert.pipeline import convert
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.convert.vocabulary.vocabulary_metadata import LIST_FILE, read_vocabulary, vocabulary_fields
from thirteen.errors import ModelFileError, VocabularyError
from thirteen.files.gguf.header import Field, Header


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (Field(5, Kind.UINT32), "'tokenizer.ggml.tokens' is of type UINT32, not ARRAY"),
        (Field([1, 2], Kind.ARRAY, Kind.UINT32), "'tokenizer.ggml.tokens' is not an array of STRING"),
        (None, "'tokenizer.ggml.tokens' is missing"),
    ],
)
def test_a_list_without_a_vocabulary_is_refused(tokens: Field | None, message: str) -> None:
    """A number in place of the tokens ended in a TypeError."""
    fields = vocabulary_fields(VocabularyList((0, 2), 5, "ab" * 32))
    fields |= {"tokenizer.ggml.tokens": tokens} if tokens else {}
    with pytest.raises(ModelFileError, match=message):
        read_vocabulary(Header(Path("a.gguf"), 3, fields, {}, 0))


def test_a_list_of_another_base_is_refused(base: Callable[[str], Path], tmp_path: Path) -> None:
    """The file could not be read again: its list had other tokens than its vocabulary."""
    folder = Path(shutil.copytree(base("llama"), tmp_path / "base"))
    VocabularyList((0, 2), 5, "ab" * 32).save(folder / LIST_FILE)
    with pytest.raises(VocabularyError, match=rf"{LIST_FILE}: has 2 tokens, but the base has 272"):
        convert(folder, tmp_path / "a.gguf", quantization="F32", threads=1)
    assert not (tmp_path / "a.gguf").exists()
