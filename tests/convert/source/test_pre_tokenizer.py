"""Each name of splitting rules stands for the rules of the source: texts have the source's token ids.

The vocabulary was trained without any rules: its tokens reach over the ends of words, so that a text which is
split elsewhere gets other tokens.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.source.pre_tokenizer import GPT_4O, PRE_TOKENIZERS, TEKKEN
from thirteen.convert.source.tokenizer import tokenizer_fields
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from . import tokenizer_texts
from .pieces import LlamaVocabulary
from .test_pieces import Pair
from .vocabularies import made_once

KEYS = {name: key for key, name in PRE_TOKENIZERS.items()}
VOCAB = 2000
STEPS: dict[str, Callable[[Any], Any]] = {
    "Split": lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated"),
    "Digits": lambda individual: pre_tokenizers.Digits(individual_digits=individual),
    "ByteLevel": lambda use_regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex),
}


@pytest.fixture(scope="module")
def trained():
    """A byte-level BPE model without rules."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1, initial_alphabet=alphabet, max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator(tokenizer_texts.lines(1500, seed=5), trainer)
    tokenizer.add_special_tokens(["<s>"])
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="module")
def pairs(trained, tmp_path_factory):
    def make(name: str, folder: Path) -> Pair:
        tokenizer = save(folder, trained, name)
        return Pair(lambda text: tokenizer.encode(text).ids, LlamaVocabulary.convert(folder, VOCAB))

    with made_once(tmp_path_factory, make, lambda pair: pair.converted.close()) as made:
        yield made


def save(folder: Path, trained: dict[str, Any], name: str) -> Tokenizer:
    """Save the vocabulary with the rules that llama.cpp knows by a name."""
    normalizer, rules, ignore_merges = KEYS[name]
    model = trained["model"] | {"ignore_merges": ignore_merges}
    tokenizer = Tokenizer.from_str(json.dumps(trained | {"model": model}))
    steps = [STEPS[kind](value) for kind, value in rules]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<s>"}))
    (folder / "config.json").write_text("{}")
    return tokenizer


def differing(pair: Pair, name: str, texts: list[str]) -> list[str]:
    """Texts with other tokens in llama.cpp, but for those with what it is known to treat otherwise."""
    normalizer, rules, _ = KEYS[name]
    nfc = normalizers.NFC()
    if normalizer:  # the runtime normalizes, by other tables than tokenizers
        texts = [nfc.normalize_str(text) for text in texts]
    if rules[0][1] in (GPT_4O, TEKKEN):
        texts = [text for text in texts if not any(map(_is_mark_or_capital, text))]
    return pair.differing(texts)


def _is_mark_or_capital(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "M" or (not character.isascii() and category in ("Lu", "Lt"))


@pytest.mark.parametrize("name", KEYS)
def test_texts_have_the_token_ids_of_the_source(pairs, name):
    assert differing(pairs(name), name, tokenizer_texts.lines(300)) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", KEYS)
def test_ten_thousand_texts_have_the_token_ids_of_the_source(pairs, name):
    assert differing(pairs(name), name, tokenizer_texts.lines(10_000)) == []


CHARACTERS = st.sampled_from("aA'sSéßÉ1\uff12 \n\r\t/-.,中あ한яЯ🙂\u00a0_")


@given(text=st.text(CHARACTERS, max_size=20))
def test_neighbours_of_all_kinds_are_split_as_by_the_source(pairs, text):
    assert [name for name in KEYS if differing(pairs(name), name, [text])] == []


def test_matches_alone_are_the_same_as_everything_between(tmp_path, trained):
    """OLMo 2's and GPT-4o's files write the rule so."""
    save(tmp_path, trained, "dbrx")
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}
    path.write_text(json.dumps(tokenizer))
    assert tokenizer_fields(tmp_path, VOCAB)["tokenizer.ggml.pre"].value == "dbrx"
