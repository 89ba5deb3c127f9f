"""The tables of arithmetic: what is in the file."""

import json
import re

from thirteen.runtime.arithmetic.notation import NOTATION, PATH

SECTIONS = ("lexemes", "prose", "any_case", "normalizations", "answers", "cues")
TEXTS = ("vulgar_fractions", "operators", "fragments", "normalizations")
LISTS = (
    *("brackets", "kinds", "relations", "words", "values", "lexemes", "prose", "any_case"),
    *("answers", "cues"),
)


def test_a_fragment_is_expanded_in_the_fragments_after_it():
    fragments, lexeme = NOTATION.texts["fragments"], NOTATION.patterns["lexeme"]
    assert fragments["list_marker"] in fragments["line_start"]
    assert lexeme.fullmatch("÷")["operator"] == "÷"
    assert lexeme.fullmatch("½")["number"] == "½"


def test_words_are_in_lower_case_as_the_parser_compares_them():
    words = [word for words in NOTATION.lists["words"].values() for word in words]
    assert words == [word.lower() for word in words]


def test_patterns_have_only_what_both_languages_share():
    r"""JavaScript has no possessive quantifiers, and its `\\s` and `\\w` are put into brackets."""
    texts = json.dumps({name: json.loads(PATH.read_text("utf-8"))[name] for name in ("fragments", *SECTIONS)})
    assert not re.search(r"[^\[][*+?]\+", texts)
    assert not re.search(r"(?<!\\)(?:\\\\)+[SWD]", texts)
    outside = re.sub(r"\[(?:[^\]\\]|\\.)*\]", "", texts)
    assert not re.search(r"(?<!\\)(?:\\\\\\\\)*\\\\[sw]", outside)


def test_the_form_of_the_file():
    """The loaders of both languages rely on it."""
    content = json.loads(PATH.read_text("utf-8"))
    kinds = {"limits": int, **dict.fromkeys(TEXTS, str), **dict.fromkeys(LISTS, list)}
    assert content.keys() == kinds.keys()
    for section, kind in kinds.items():
        assert all(type(value) is kind for value in content[section].values()), section
    assert all(0 < limit <= 1_000 for limit in content["limits"].values())
    lists = [texts for section in LISTS for texts in content[section].values()]
    assert all(texts and all(type(text) is str for text in texts) for texts in lists)
    patterns = [*NOTATION.patterns.values(), *NOTATION.cues, *(old for old, _ in NOTATION.normalizations)]
    assert max(len(pattern.pattern) for pattern in patterns) <= 4_000
    unknown = [pattern.pattern for pattern in patterns if re.search(r"\{[a-z_]+\}", pattern.pattern)]
    assert not unknown
