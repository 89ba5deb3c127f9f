"""Every beginning of a ranking is a vocabulary for the base, with the required tokens first."""

# ruff: noqa: RUF001 - a tokenizer must distinguish characters that look alike

import numpy as np
import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.ranking import (
    REPACKED_ROWS,
    check_size,
    must_stay,
    rank_tokens,
    required_tokens,
)
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import TrimmedCheckpoint, check_list
from thirteen.errors import FileError
from thirteen.models.embedded import embedded
from thirteen.models.passages import HELD_OUT, read_passages, tokenize_passages
from thirteen.models.vocabulary_choice import count_tokens, read_texts
from thirteen.runtime.llama.model import Model

from ...byte_level import byte_names
from .kept_lists import closed_list, tables_of

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
        "a test", tokens, np.array(types, np.int32), np.array(triples, np.int32).reshape(-1, 3), pre,
        {"eos": ids["<|im_end|>"]}, (),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tables():
    """SmolLM2's tokenizer with what every list has, and the results of its first merges."""
    full = tables_of(embedded())
    kept = closed_list(full, {*required_tokens(full), *full.merges[:5000, 2].tolist()})
    return TokenizerTables.from_fields(
        TrimmedCheckpoint(open_checkpoint(embedded()), kept).tokenizer, "smollm2"
    )


@pytest.fixture(scope="module")
def ranking(tables):
    rng = np.random.default_rng(13)
    size = len(tables.tokens)
    counts = np.where(rng.random(size) < 0.2, rng.integers(1, 99, size), 0)
    return rank_tokens(tables, counts, rng.random(size) ** 8 / size)


def ranked_texts(tables: TokenizerTables, **statistics: dict[str, float]) -> list[str]:
    """Texts by rank; counts and probabilities are given by text, 0 for the others."""
    arrays = {
        name: np.array(
            [by_text.get(text, 0) for text in tables.tokens], np.int64 if name == "counts" else float
        )
        for name, by_text in ({"counts": {}} | statistics).items()
    }
    return [tables.tokens[i] for i in rank_tokens(tables, **arrays).order]


@settings(max_examples=5)
@given(part=st.floats(0, 1))
def test_every_beginning_can_be_a_vocabulary(tables, ranking, part):
    size = round(ranking.required + part * (len(ranking.order) - ranking.required))
    kept = ranking.choose(size)
    rounded = min(size + -size % REPACKED_ROWS, len(ranking.order))  # llama.cpp repacks no other matrix
    assert len(kept.tokens) == rounded
    check_list(kept, tables)


MERGES = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=4), st.text("abc", min_size=1, max_size=4)),
    max_size=12,
    unique=True,
)


@given(pairs=MERGES, data=st.data())
def test_beginnings_are_closed_for_any_merges(pairs, data):
    """Merges whose parts no merge gives, or gives only later, and tokens that more than one merge gives."""
    known = set("abc")
    merges = [pair for pair in pairs if set(pair) <= known and not known.add("".join(pair))]
    tables = small_tables(merges)
    numbers = st.lists(st.integers(0, 5), min_size=len(tables.tokens), max_size=len(tables.tokens))
    ranking = rank_tokens(tables, np.array(data.draw(numbers)), np.array(data.draw(numbers)) / 1000)
    assert sorted(ranking.order) == list(range(len(tables.tokens)))
    for size in range(ranking.required, len(ranking.order) + 1):
        check_list(ranking.choose(size), tables)


def test_required_tokens_come_first(tables, ranking):
    first = {tables.tokens[i] for i in ranking.order[: ranking.required]}
    assert first >= {"A", "Ċ", "Ġ", "<|im_end|>", "7", "$", "Ġ+", "frac", "ĠĠĠĠ", "Â£"}
    assert not first & {"Ġapples", "Ġthe"}
    assert [*ranking.order[: ranking.required]] == required_tokens(tables)


@pytest.mark.exhaustive
def test_held_out_problems_keep_nearly_all_tokens():
    """Half of the tokens, chosen on the built-in texts."""
    tables = tables_of(embedded())
    with Model(embedded()) as model:
        counts = count_tokens(model, list(tokenize_passages(model, read_texts(None).built_in)))
        kept = set(rank_tokens(tables, counts).choose(24_576).tokens)
        passages = [one for one in read_passages(HELD_OUT) if one.question is not None]
        used = [token for one in passages for token in model.tokenize(one.text, special=False, bos=False)]
    assert sum(token in kept for token in used) > 0.995 * len(used)


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


def test_sizes_out_of_range_are_refused(tables, ranking):
    size = len(tables.tokens)
    for call in (ranking.choose, lambda size: check_size(tables, size)):
        for wrong in (300, size + 1):
            message = rf"of {wrong} tokens: {ranking.required} must stay: .*; and the base has {size}"
            with pytest.raises(FileError, match=message):
                call(wrong)
    check_size(tables, ranking.required)


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
