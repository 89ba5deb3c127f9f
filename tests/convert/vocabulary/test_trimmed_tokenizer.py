"""A text whose original tokens are all kept gets these tokens, renumbered; any other keeps its bytes.

The judge is llama.cpp's tokenizer, on SmolLM2's vocabulary and on SentencePiece's.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.source.tokenizer import BYTE_PIECES, tokenizer_fields
from thirteen.convert.vocabulary.ranking import required_tokens
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList, trimmed_fields
from thirteen.models.embedded import embedded

from ..source import tokenizer_texts
from ..source.pieces import LlamaVocabulary, save_json, trained_model
from .kept_lists import closed_list


@dataclass(frozen=True, eq=False)
class Trimmed:
    """A vocabulary with all its tokens and with some, in llama.cpp."""

    tables: TokenizerTables
    kept: VocabularyList
    full: LlamaVocabulary
    trimmed: LlamaVocabulary

    def check(self, text: str) -> bool:
        """Check the guarantee for a text; whether all its original tokens are kept."""
        original = self.full.ids(text)
        mapped = [self.kept.tokens[token] for token in self.trimmed.ids(text)]
        if all_kept := set(original) <= set(self.kept.tokens):
            assert mapped == original, text
        else:
            assert self.full.written(original) == self.full.written(mapped), text
        return all_kept


def make(name: str, folder: Path) -> Trimmed:
    if name == "smollm2":
        fields = open_checkpoint(embedded()).tokenizer
    else:
        model = trained_model(folder, name == "llama")
        fields = tokenizer_fields(folder, save_json(folder, model, name).get_vocab_size())
    tables, full = TokenizerTables.from_fields(fields, name), LlamaVocabulary(folder / "full.gguf", fields)
    seen = {token for text in tokenizer_texts.lines(300)[::2] for token in full.ids(text)}
    kept = closed_list(tables, set(sorted(seen)[::2]))
    trimmed = LlamaVocabulary(folder / "trimmed.gguf", trimmed_fields(fields, tables, kept))
    return Trimmed(tables, kept, full, trimmed)


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    return cache(lambda name: make(name, tmp_path_factory.mktemp("trimmed")))


@pytest.mark.parametrize("name", ["smollm2", "llama", "gemma"])
def test_texts_of_kept_tokens_keep_their_ids(trimmed, name):
    one = trimmed(name)
    words = [word for text in tokenizer_texts.lines(600) for word in (text, *text.split())]
    kept = [text for text in words if one.check(text)]
    assert len(kept) > len(words) // 10 and len(one.kept.tokens) < 0.8 * one.kept.of


@pytest.mark.parametrize("name", ["smollm2", "llama"])
@given(data=st.data())
def test_any_text_of_kept_tokens_keeps_its_ids(trimmed, name, data):
    one = trimmed(name)
    tokens = data.draw(st.lists(st.sampled_from(one.kept.tokens), max_size=8))
    one.check(one.full.written(tokens).decode("utf-8", "ignore").replace("\0", ""))


def test_pieces_are_joined_as_by_llama_cpp(trimmed):
    one = trimmed("gemma")
    for text in tokenizer_texts.lines(200):
        assert one.tables.split(text) == tuple(one.full.ids(text)), text


def test_bytes_controls_numbers_and_spaces_always_stay(trimmed):
    tables = trimmed("gemma").tables
    required = {tables.tokens[token] for token in required_tokens(tables)}
    assert required >= {*BYTE_PIECES, "<s>", "</s>", "7", "▁", "+", "▁▁▁▁"}
    assert not required & {"▁the", "[INST]"}
