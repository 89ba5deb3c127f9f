"""The tables of arithmetic: what is in the file."""

import json
import re

from thirteen.runtime.arithmetic.notation import NOTATION, PATH

TEXTS = ("vulgar_fractions", "operators", "fragments", "normalizations")
LISTS = ("words", "values", "lexemes", "prose", "answers", "cues")
CONTENT = json.loads(PATH.read_text("utf-8"))


def test_a_fragment_is_expanded_in_the_fragments_after_it():
    fragments, lexeme = NOTATION.texts["fragments"], NOTATION.patterns["lexeme"]
    assert fragments["decimal"] in fragments["divided"]
    assert lexeme.fullmatch("÷")["operator"] == "÷"
    assert lexeme.fullmatch("€")["currency"] == "€"


def test_words_are_in_lower_case_as_the_parser_compares_them():
    words = [word for name, words in NOTATION.words.items() for word in words if name != "symbols"]
    assert words == [word.lower() for word in words]


def test_no_word_that_calculates_is_known_as_a_unit():
    units = NOTATION.words["things"] | NOTATION.words["measures"]
    numbers = NOTATION.words["cardinals"] | NOTATION.values.keys()
    assert units.isdisjoint(NOTATION.words["parts"] | NOTATION.words["bases"] | numbers)
    assert NOTATION.words["things"].isdisjoint(NOTATION.words["measures"])


def test_patterns_have_only_what_both_languages_share():
    r"""JavaScript has no possessive quantifiers, and its `\\s` and `\\w` are put into brackets."""
    texts = json.dumps({name: CONTENT[name] for name in ("fragments", "normalizations", *LISTS[2:])})
    assert not re.search(r"[^\[][*+?]\+", texts)
    assert not re.search(r"(?<!\\)(?:\\\\)+[SWD]", texts)
    outside = re.sub(r"\[(?:[^\]\\]|\\.)*\]", "", texts)
    assert not re.search(r"(?<!\\)(?:\\\\\\\\)*\\\\[sw]", outside)


def test_the_form_of_the_file():
    """The loaders of both languages rely on it."""
    kinds = {"limits": int, **dict.fromkeys(TEXTS, str), **dict.fromkeys(LISTS, list)}
    assert CONTENT.keys() == kinds.keys()
    for section, kind in kinds.items():
        assert all(type(value) is kind for value in CONTENT[section].values()), section
    assert all(0 < limit <= 1_000 for limit in CONTENT["limits"].values())
    lists = [texts for section in LISTS for texts in CONTENT[section].values()]
    assert all(texts and all(type(text) is str for text in texts) for texts in lists)
    patterns = [*NOTATION.patterns.values(), *NOTATION.cues, *(old for old, _ in NOTATION.normalizations)]
    assert max(len(pattern.pattern) for pattern in patterns) <= 4_000
    unknown = [pattern.pattern for pattern in patterns if re.search(r"\{[a-z_]+\}", pattern.pattern)]
    assert not unknown
