r"""The tables of arithmetic notation, notation.json, which the web page's JavaScript reads too.

The file has the limits, words, operators and patterns; this package and the page have only the engine. A
pattern is a list of alternatives, where `{letter}` stands for the fragment of that name. It is in the syntax
that Python and JavaScript share, with `(?P<name>…)` for groups and with `\s` and `\w` only in brackets. All
patterns take linear time; the tests measure it in both languages.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ThirteenError, shorten
from ...files.json_file import parse_json, read_bounded

PATH = Path(__file__).with_name("notation.json")
_BYTES_MAX = 32_768
_LIMIT_MAX = 1_000
_ENTRIES_MAX = 100  # of a section, and of a list
_TEXT_MAX, _PATTERN_MAX = 200, 4_000  # characters, of a pattern with its fragments

_TEXTS = ("vulgar_fractions", "operators", "fragments", "normalizations")
_LISTS = ("brackets", "kinds", "relations", "words", "lexemes")
_ANSWERS = re.ASCII | re.IGNORECASE
_FLAGS = {"prose": re.NOFLAG, "any_case": re.IGNORECASE, "answers": _ANSWERS, "cues": _ANSWERS}
_TYPES = {"limits": int, **dict.fromkeys(_TEXTS, str), **dict.fromkeys((*_LISTS, *_FLAGS), list)}


@dataclass(frozen=True, slots=True)
class Notation:
    """The tables of a notation file, checked.

    Attributes:
        limits: counts of characters, digits and other things.
        texts: of the sections that map texts to texts; fragments are expanded.
        lists: of the sections that map names to lists of texts.
        patterns: of prose and answers, by name; "lexeme" has a group for each kind of lexeme.
        cues: patterns whose group captures the text that states an answer, the most explicit first.
        normalizations: patterns of answers with their replacements, in order.
    """

    limits: Mapping[str, int]
    texts: Mapping[str, Mapping[str, str]]
    lists: Mapping[str, Mapping[str, list[str]]]
    patterns: Mapping[str, re.Pattern[str]]
    cues: tuple[re.Pattern[str], ...]
    normalizations: tuple[tuple[re.Pattern[str], str], ...]

    def words(self, name: str) -> frozenset[str]:
        """Words of a table, in lower case."""
        return frozenset(self.lists["words"][name])


def load_notation(path: Path = PATH) -> Notation:
    """Read a notation file.

    Raises:
        ThirteenError: it is unreadable or too large, or an entry has another form.
    """
    content = parse_json(read_bounded(path, _BYTES_MAX, ThirteenError), str(path), ThirteenError)
    try:
        _check(content)
        signs = "".join(sign for sign in content["operators"] if not sign.isascii())
        fragments = {"vulgar": "".join(content["vulgar_fractions"]), "signs": signs}
        for name, text in content["fragments"].items():
            fragments[name] = _expand(text, fragments)  # each may contain the ones before
        found = {
            section: {
                name: _compile("|".join(texts), fragments, flags) for name, texts in content[section].items()
            }
            for section, flags in _FLAGS.items()
        }
        lexeme = "|".join(f"(?P<{kind}>{'|'.join(texts)})" for kind, texts in content["lexemes"].items())
        patterns = {
            "lexeme": _compile(lexeme, fragments),
            **found["prose"],
            **found["any_case"],
            **found["answers"],
        }
        normalizations = [
            (_compile(old, fragments, _ANSWERS), new) for old, new in content["normalizations"].items()
        ]
    except ValueError as error:
        raise ThirteenError(f"{path}: {error}") from None
    texts = {section: content[section] for section in _TEXTS} | {"fragments": fragments}
    lists = {section: content[section] for section in _LISTS}
    return Notation(
        content["limits"], texts, lists, patterns, tuple(found["cues"].values()), tuple(normalizations)
    )


def _check(content: Any) -> None:
    """Raise ValueError if a section is absent or unknown, or an entry has another type or is too large."""
    if not isinstance(content, dict) or content.keys() != _TYPES.keys():
        raise ValueError(f"the sections must be {', '.join(sorted(_TYPES))}")
    for section, kind in _TYPES.items():
        entries = content[section]
        if not isinstance(entries, dict) or len(entries) > _ENTRIES_MAX:
            raise ValueError(f"{section} must be an object of at most {_ENTRIES_MAX} entries")
        for name, value in entries.items():
            if not _is_valid(name, str) or not _is_valid(value, kind):
                raise ValueError(f"{section}.{name[:40]} cannot be {shorten(value)}")


def _is_valid(value: Any, kind: type) -> bool:
    if kind is list and isinstance(value, list):
        return 0 < len(value) <= _ENTRIES_MAX and all(_is_valid(item, str) for item in value)
    if kind is int:
        return type(value) is int and 0 < value <= _LIMIT_MAX
    return kind is str and isinstance(value, str) and len(value) <= _TEXT_MAX


def _compile(pattern: str, fragments: Mapping[str, str], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    try:
        return re.compile(_expand(pattern, fragments), flags)
    except re.error as error:
        raise ValueError(f"{shorten(pattern)} is no pattern: {error}") from None


def _expand(pattern: str, fragments: Mapping[str, str]) -> str:
    """Replace the names of fragments."""
    try:
        expanded = re.sub(r"\{([a-z_]+)\}", lambda match: fragments[match[1]], pattern)
    except KeyError as error:
        raise ValueError(f"{shorten(pattern)} contains {error}, which is no fragment before it") from None
    if len(expanded) > _PATTERN_MAX:
        raise ValueError(f"{shorten(pattern)} has {len(expanded)} characters, at most {_PATTERN_MAX}")
    return expanded


NOTATION = load_notation()
