"""A vocabulary list is written and read unchanged, and one that cannot be applied is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFValueType as Kind
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import (
    VocabularyList,
    check_list,
    read_vocabulary,
    vocabulary_fields,
)
from thirteen.errors import FileError
from thirteen.files.gguf.header import Field, Header
from thirteen.models.embedded import embedded

from ...refusals import refused
from .kept_lists import closed_list, tables_of

HASH = "0" * 64


@pytest.fixture(scope="module")
def tables():
    """The tokenizer of SmolLM2."""
    return tables_of(embedded())


@pytest.fixture(scope="module")
def kept(tables):
    """The required tokens, and the first thousand with all they are built from."""
    return closed_list(tables, range(1000))


def test_a_list_is_read_as_it_was_written(tmp_path, kept, tables):
    kept.save(tmp_path / "list.json")
    assert VocabularyList.load(tmp_path / "list.json") == kept
    assert list(tmp_path.iterdir()) == [tmp_path / "list.json"]
    check_list(kept, tables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of": ...}, "unexpected layout (KeyError: 'of')"),
        ({"tokenizer_sha256": 3}, "not a vocabulary list"),
        ({"tokens": [1, 3, 3]}, "ascending ids below 10"),
        ({"tokens": [1, 10]}, "ascending ids below 10"),
    ],
)
def test_a_damaged_list_is_refused_with_its_place(tmp_path, changes, message):
    facts = {"of": 10, "tokenizer_sha256": HASH, "tokens": [1, 2, 7]} | changes
    path = tmp_path / "list.json"
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not ...}))
    with refused(path, message, FileError):
        VocabularyList.load(path)


def test_the_list_of_another_base_is_refused(kept, tables):
    for other in (replace(kept, of=kept.of + 1), replace(kept, tokenizer_sha256=HASH, name="my list")):
        with pytest.raises(FileError, match=f"^{other.name}: is for another tokenizer"):
            check_list(other, tables)


def test_a_list_without_what_every_file_needs_is_refused(kept, tables):
    def without(*tokens: int) -> VocabularyList:
        return replace(kept, tokens=tuple(token for token in kept.tokens if token not in tokens))

    with pytest.raises(FileError, match=r"lacks 1 single bytes or tokens"):
        check_list(without(tables.byte_ids[200]), tables)
    with pytest.raises(FileError, match=r"lacks 1 .*<\|im_start\|>"):
        check_list(without(tables.ids["<|im_start|>"]), tables)
    with pytest.raises(FileError, match=r"not closed under merges: token \d+ \('Ġthe'\) is built from"):
        check_list(without(tables.built_from(tables.ids["Ġthe"])[0]), tables)


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
        (Field(["a"] * 3, Kind.ARRAY, Kind.STRING), "has 2 ids, but the file has 3 tokens"),
        (None, "'tokenizer.ggml.tokens' is missing"),
    ],
)
def test_a_list_in_metadata_that_is_not_of_the_files_tokens_is_refused(tokens, message):
    """A number in place of the tokens ended in a TypeError."""
    fields = vocabulary_fields(VocabularyList((0, 2), 5, HASH))
    fields |= {"tokenizer.ggml.tokens": tokens} if tokens else {}
    with pytest.raises(FileError, match=message):
        read_vocabulary(Header(Path("a.gguf"), 3, fields, {}, 0))


@given(chosen=st.sets(st.integers(0, 49151), max_size=300))
def test_missing_parts_are_those_of_every_derivation(tables, chosen):
    """BPE over the text of every token finds the same as over the doubtful ones alone."""
    parts = {part for token in chosen for part in tables.built_from(token)}
    missing = set(tables.missing_parts(chosen))
    single = set(tables.byte_ids.values())  # a merge of two bytes is built from them; no list lacks bytes
    assert missing - single == parts - chosen - single
    assert not tables.missing_parts(chosen | missing | single)
