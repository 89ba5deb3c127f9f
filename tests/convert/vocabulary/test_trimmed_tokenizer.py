"""A text whose original tokens are all kept gets these tokens, renumbered; any other keeps its bytes.

The judge is llama.cpp's tokenizer, on files with the published vocabularies of SmolLM2, Llama 3 and Qwen2.5.
"""

import random
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.convert import convert
from thirteen.convert.quantization import Uniform
from thirteen.convert.recipe import Recipe
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.runtime.llama.model import Model

from ..source import tokenizer_texts
from ..source.vocabularies import EACH, made_once, save_published
from .kept_lists import closed_list, tables_of

pytestmark = pytest.mark.slow

LINES = 1000


@dataclass(frozen=True, eq=False)
class Trimmed:
    """A tokenizer with all its tokens and with some, in llama.cpp."""

    full: Model
    model: Model
    kept: VocabularyList

    def close(self) -> None:
        self.full.close()
        self.model.close()

    def original_ids(self, text: str) -> list[int]:
        return self.full.tokenize(text, special=False, bos=True)

    def mapped_ids(self, text: str) -> list[int]:
        """The trimmed tokenizer's tokens, by their original ids."""
        return [self.kept.tokens[token] for token in self.model.tokenize(text, special=False, bos=True)]

    def check(self, text: str) -> bool:
        """Check the guarantee for a text; whether all its original tokens are kept."""
        original, mapped = self.original_ids(text), self.mapped_ids(text)
        if all_kept := set(original) <= set(self.kept.tokens):
            assert mapped == original, text
        else:
            assert self.written(self.full, original) == self.written(self.full, mapped), text
        return all_kept

    @staticmethod
    def written(model: Model, tokens: list[int]) -> bytes:
        return b"".join(model.token_to_piece(token) for token in tokens)


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    """trimmed(name): a published tokenizer with the tokens of half of the corpus and some random ones."""
    with made_once(tmp_path_factory, _make, Trimmed.close) as made:
        yield made


def _make(name: str, folder: Path) -> Trimmed:
    save_published(name, folder)
    convert(Recipe(folder, folder / "full.gguf", Uniform("F32")))
    full, tables = Model(folder / "full.gguf"), tables_of(folder)
    seen = {token for text in corpus()[::2] for token in full.tokenize(text, special=False, bos=False)}
    seen |= set(random.Random(13).sample(range(len(tables.tokens)), 4000))
    kept = closed_list(tables, seen)
    assert len(kept.tokens) < 0.6 * kept.of
    convert(Recipe(folder, folder / "trimmed.gguf", Uniform("F32"), vocabulary=kept))
    return Trimmed(full, Model(folder / "trimmed.gguf"), kept)


def corpus() -> list[str]:
    return tokenizer_texts.lines(LINES)


@pytest.fixture(params=EACH)
def each(request, trimmed):
    return trimmed(request.param)


def test_a_corpus_keeps_its_tokens_or_its_bytes(each):
    kept = [each.check(text) for text in corpus()]
    assert all(kept[::2]), "the list has all tokens of these"
    assert 0 < sum(kept[1::2]) < len(kept[1::2]), "both cases occur"


def test_special_tokens_keep_their_meaning(each):
    """A control token is one token, or plain text if it was dropped."""
    new_ids = {old: new for new, old in enumerate(each.kept.tokens)}
    assert each.model.control_tokens.keys() <= each.full.control_tokens.keys()
    for name, token in each.full.control_tokens.items():
        each.check(f"a{name}b {name}{name}")
        tokens = each.model.tokenize(f"a{name}b", special=True, bos=False)
        if token in new_ids:
            assert each.model.control_tokens[name] == new_ids[token]
            assert each.model.is_eog(new_ids[token]) == each.full.is_eog(token)
            assert tokens == [
                new_ids[each.full.tokenize(text, special=False, bos=False)[0]]
                if text != name
                else new_ids[token]
                for text in ("a", name, "b")
            ]
        else:
            assert Trimmed.written(each.model, tokens) == f"a{name}b".encode()
    assert (len(each.model.begin), each.full.eos) == (
        len(each.full.begin),
        each.kept.tokens[each.model.eos or 0],
    )


@given(data=st.data())
@pytest.mark.parametrize("name", EACH)
def test_any_text_keeps_its_tokens_or_its_bytes(trimmed, name, data):
    each = trimmed(name)
    pieces = st.sampled_from(
        ("the", " the", "12", "1234567", " Quick", "\n\n", "  ", "'ll", "é", "\\frac{1}")
    )
    kept = st.sampled_from(each.kept.tokens).map(lambda token: each.written(each.full, [token]))
    pieces |= kept.map(lambda text: text.decode("utf-8", "ignore"))
    text = "".join(data.draw(st.lists(pieces | st.text(max_size=4), max_size=12)))
    each.check(unicodedata.normalize("NFC", text))
