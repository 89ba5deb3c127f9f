"""Each name of splitting rules stands for the rules of the source: texts have the source's token ids.

The vocabulary was trained without any rules: its tokens reach over the ends of words, so that a text which is
split elsewhere gets other tokens. Llama 3's vocabulary is the published one.
"""

import base64
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.source.pre_tokenizer import GPT_4O, PRE_TOKENIZERS, TEKKEN
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from ...byte_level import byte_names
from . import tokenizer_texts
from .pieces import comparison, fields_of

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


def llama3() -> tuple[str, dict[str, Any]]:
    """Llama 3's rules and BPE model, from llama-models; its merges are all pairs that make up a token."""
    llama_models, names = pytest.importorskip("llama_models"), byte_names()
    path = Path(llama_models.__file__).parent / "llama3" / "tokenizer.model"
    entries = (line.split() for line in path.read_bytes().splitlines() if line)
    ranks = {"".join(names[byte] for byte in base64.b64decode(token)): int(rank) for token, rank in entries}
    merges = []
    for token in ranks:
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return "llama-bpe", as_json(ranks, merges, [{"id": len(ranks), "content": "<|begin_of_text|>"}])


def as_json(vocab: dict[str, int], merges: list[Any], added: list[dict[str, Any]]) -> dict[str, Any]:
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer = json.loads(Tokenizer(models.BPE()).to_str())
    tokenizer["model"] |= {"vocab": vocab, "merges": merges}
    return tokenizer | {"added_tokens": [token | options | {"special": True} for token in added]}


NAMES = [*KEYS, pytest.param("llama3 as published", marks=pytest.mark.exhaustive)]


@pytest.fixture(scope="module")
def differing(trained, tmp_path_factory):
    def save_named(name: str, folder: Path) -> Tokenizer:
        rules, model = llama3() if name.startswith("llama3") else (name, trained)
        return save(folder, model, rules)

    differing = comparison(save_named, tmp_path_factory)
    return lambda name, texts: differing(name, comparable(name, texts))


def save(folder: Path, model: dict[str, Any], name: str) -> Tokenizer:
    """Save a vocabulary with the rules that llama.cpp knows by a name."""
    normalizer, rules, ignore_merges = KEYS[name]
    bpe = model["model"] | {"ignore_merges": ignore_merges}
    tokenizer = Tokenizer.from_str(json.dumps(model | {"model": bpe}))
    steps = [STEPS[kind](value) for kind, value in rules]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    if normalizer:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(folder / "tokenizer.json"))
    last = model["added_tokens"][-1]["content"]
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": last}))
    (folder / "config.json").write_text("{}")
    return tokenizer


def comparable(name: str, texts: list[str]) -> list[str]:
    """The texts without those that llama.cpp is known to treat otherwise.

    Its Unicode tables lack the newest digits, so it splits them as symbols.
    """
    normalizer, rules, _ = KEYS.get(name, (None, ((), ("",)), False))
    if normalizer:  # the runtime normalizes, by other tables than tokenizers
        texts = [normalizers.NFC().normalize_str(text) for text in texts]
    if rules[0][-1:] in ((GPT_4O,), (TEKKEN,)):
        texts = [text for text in texts if not any(map(_is_mark_or_capital, text))]
    if name == "llama3 as published":
        texts = [text for text in texts if not any(ord(c) in tokenizer_texts.NEW_DIGITS for c in text)]
    return texts


def _is_mark_or_capital(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "M" or (not character.isascii() and category in ("Lu", "Lt"))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", NAMES)
def test_texts_have_the_token_ids_of_the_source(differing, name, count):
    texts = [*tokenizer_texts.lines(count), "a<|im_start|>b <|im_end|>\n<|begin_of_text|>"]
    assert differing(name, texts) == []


CHARACTERS = st.sampled_from("aA'sSéßÉ1\uff12 \n\r\t/-.,中あ한яЯ🙂\u00a0_")


@given(text=st.text(CHARACTERS, max_size=20))
def test_neighbours_of_all_kinds_are_split_as_by_the_source(differing, text):
    assert [name for name in KEYS if differing(name, [text])] == []


def test_matches_alone_are_the_same_as_everything_between(tmp_path, trained):
    """OLMo 2's and GPT-4o's files write the rule so."""
    save(tmp_path, trained, "dbrx")

    def between(tokenizer: Any) -> None:
        tokenizer["pre_tokenizer"]["pretokenizers"][0] |= {"behavior": "Removed", "invert": True}

    assert fields_of(tmp_path, VOCAB, tokenizer=between)["pre"] == "dbrx"
