"""Every beginning of a ranking is a vocabulary for the base, with the required tokens first."""

# ruff: noqa: RUF001 - a tokenizer must distinguish characters that look alike

import numpy as np
import pytest
from gguf import TokenType
from hypothesis import given
from hypothesis import strategies as st
from thirteen.convert.vocabulary.ranking import (
    REPACKED_ROWS,
    check_size,
    must_stay,
    rank_tokens,
    required_tokens,
)
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.errors import FileError

from ...byte_level import byte_names

pytestmark = pytest.mark.slow


def small_tables(
    merges: list[tuple[str, str]], pre: str = "qwen2", words: tuple[str, ...] = ()
) -> TokenizerTables:
    """Bytes, an end token, the results of merges, and words that no merge gives."""
    results = dict.fromkeys(left + right for left, right in merges)
    tokens = tuple(dict.fromkeys((*byte_names(), "<|im_end|>", *results, *words)))
    ids = {text: i for i, text in enumerate(tokens)}
    types = [TokenType.CONTROL if text == "<|im_end|>" else TokenType.NORMAL for text in tokens]
    triples = [(ids[left], ids[right], ids[left + right]) for left, right in merges]
    return TokenizerTables(
        tokens, np.array(types, np.int32), np.array(triples, np.int32).reshape(-1, 3), pre,
        {"eos": ids["<|im_end|>"]}, (),
    )  # fmt: skip


def ranked_texts(tables: TokenizerTables, **statistics: dict[str, float]) -> list[str]:
    """Texts by rank; counts and probabilities are given by text, 0 for the others."""
    arrays = {
        name: np.array(
            [by_text.get(text, 0) for text in tables.tokens], np.int64 if name == "counts" else float
        )
        for name, by_text in ({"counts": {}} | statistics).items()
    }
    return [tables.tokens[i] for i in rank_tokens(tables, **arrays).order]


MERGES = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=4), st.text("abc", min_size=1, max_size=4)),
    max_size=12,
    unique=True,
)


@given(pairs=MERGES, data=st.data())
def test_beginnings_are_closed_for_any_merges_and_other_sizes_are_refused(pairs, data):
    """Merges whose parts no merge gives, or gives only later, and tokens that more than one merge gives."""
    known = set("abc")
    merges = [pair for pair in pairs if set(pair) <= known and not known.add("".join(pair))]
    tables = small_tables(merges)
    numbers = st.lists(st.integers(0, 5), min_size=len(tables.tokens), max_size=len(tables.tokens))
    ranking = rank_tokens(tables, np.array(data.draw(numbers)), np.array(data.draw(numbers)) / 1000)
    assert sorted(ranking.order) == list(range(len(tables.tokens)))
    assert [*ranking.order[: ranking.required]] == required_tokens(tables)
    size = len(tables.tokens)
    for chosen in range(ranking.required, size + 1):
        kept = ranking.choose(chosen)
        parts = {part for token in kept.tokens for part in tables.built_from(token)}
        assert parts | tables.required_ids <= set(kept.tokens)
        assert (kept.of, kept.tokenizer_sha256) == (size, tables.sha256)
        # llama.cpp repacks no other matrix
        assert len(kept.tokens) == min(chosen + -chosen % REPACKED_ROWS, size)
    for call in (ranking.choose, lambda wrong: check_size(tables, wrong)):
        for wrong in (200, size + 1):
            message = rf"of {wrong} tokens: {ranking.required} must stay: .*; and the base has {size}"
            with pytest.raises(FileError, match=message):
                call(wrong)
    check_size(tables, ranking.required)


WORD = {"probability": {"word": 0.5}}


@pytest.mark.parametrize(
    ("tables", "statistics", "last"),
    [
        # Ten times the probability outweighs a little later merge; words come before pieces of code.
        (
            small_tables([("q", "x"), ("q", "y"), ("Q", "Z"), ("Ġ", "q")]),
            {"probability": {"qy": 1e-3, "qx": 1e-5}},
            ["qy", "qx", "Ġq", "QZ"],
        ),
        # Tokens of other scripts are the last: и of two bytes.
        (small_tables([("Ð", "¸"), ("q", "x")]), {"probability": {"Ð¸": 0.5}}, ["qx", "Ð¸"]),
        # Tokens of the texts come by their counts and ids, each after what it is built from.
        (
            small_tables([("q", "x"), ("q", "y"), ("q", "z"), ("q", "w"), ("y", "z"), ("qx", "yz")]),
            {"counts": {"qz": 5, "qxyz": 3, "qy": 1, "qw": 1}},
            ["qz", "qx", "yz", "qxyz", "qy", "qw"],
        ),
        # A word that no merge gives is kept only by tokenizers that ignore merges.
        (small_tables([("q", "x"), ("q", "y")], "llama-bpe", ("word",)), WORD, ["word", "qx", "qy"]),
        (small_tables([("q", "x"), ("q", "y")], "qwen2", ("word",)), WORD, ["qx", "qy", "word"]),
    ],
)
def test_counts_probability_and_merge_order_rank_the_others(tables, statistics, last):
    assert ranked_texts(tables, **statistics)[-len(last) :] == last


def test_equal_pairs_join_the_leftmost():
    tables = small_tables([("q", "q"), ("qq", "q")])
    assert [tables.tokens[i] for i in tables.built_from(tables.ids["qqq"])] == ["qq", "qqq"]


@pytest.mark.parametrize(
    ("stay", "texts"),
    [
        (True, ("7", "42", "365", " 9")),
        (True, ("+", " =", "$", " £", "€", " ×", "**", "),", "!\n", " —", "’")),
        (True, (" ", "    ", "\n", "\n\n\n", "\t", "\r\n", " \n")),
        (True, ("frac", "\\frac", "boxed", "\\(", "}{", "$$", "^{")),
        (False, ("1234", "apple", " frac", " " * 17, "==>", "é", "12a")),
    ],
)
def test_numbers_signs_white_space_and_latex_stay(stay, texts):
    assert {text: must_stay(text) for text in texts} == dict.fromkeys(texts, stay)
