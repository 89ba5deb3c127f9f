"""The tables of arithmetic: what is in the file, and what a damaged one says."""

import json
import re

import pytest
from thirteen.errors import ThirteenError
from thirteen.runtime.arithmetic.notation import NOTATION, PATH, load_notation

SECTIONS = ("lexemes", "prose", "any_case", "normalizations", "answers", "cues")


def damaged(tmp_path, **sections):
    """The notation file with some sections replaced."""
    path = tmp_path / "notation.json"
    path.write_text(json.dumps(json.loads(PATH.read_text("utf-8")) | sections))
    return path


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


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"limits": {"window": "300"}}, r"limits\.window cannot be '300'"),
        ({"limits": {"window": 0}}, r"limits\.window cannot be 0"),
        ({"limits": {"window": True}}, r"limits\.window cannot be True"),
        ({"limits": {"window": 10**9}}, r"limits\.window cannot be 1000000000"),
        ({"words": []}, "words must be an object of at most 100 entries"),
        (
            {"words": {key: ["a"] for key in map(str, range(101))}},
            "words must be an object of at most 100 entries",
        ),
        ({"words": {"per": []}}, r"words\.per cannot be \[\]"),
        ({"words": {"per": ["a"] * 101}}, r"words\.per cannot be \['a', 'a',"),
        ({"words": {"per": [7]}}, r"words\.per cannot be \[7\]"),
        ({"operators": {"x": "*" * 201}}, r"operators\.x cannot be"),
        (
            {"fragments": {"decimal": "{letter}"}},
            "'{letter}' contains 'letter', which is no fragment before it",
        ),
        (
            {"fragments": {"letter": "{letter}"}},
            "'{letter}' contains 'letter', which is no fragment before it",
        ),
        ({"fragments": {"a": "9" * 150, "b": "{a}" * 30}}, "'{a}{a}.* has 4500 characters, at most 4000"),
        ({"normalizations": {"(": ""}}, r"'\(' is no pattern: missing \)"),
        ({"prose": {"bold": ["[", "x"]}}, r"'\[\|x' is no pattern: unterminated"),
        ({"cues": {"boxed": ["{nothing}"]}}, "'{nothing}' contains 'nothing'"),
        ({"more": {}}, "the sections must be answers, any_case"),
    ],
)
def test_a_damaged_file_is_named_with_the_entry(tmp_path, sections, message):
    with pytest.raises(ThirteenError, match=rf"notation\.json: {message}") as raised:
        load_notation(damaged(tmp_path, **sections))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "the sections must be"),
        (b"\xff", "not UTF-8"),
        (b" " * 40_000, "more than 32,768 bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "notation.json"
    path.write_bytes(content)
    with pytest.raises(ThirteenError, match=message):
        load_notation(path)
