"""The tables of grammar.toml, and the lexer of arithmetic in prose, Markdown and LaTeX that they define."""

import re
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

_TABLES = tomllib.loads(Path(__file__).with_name("grammar.toml").read_text("utf-8"))
_LISTS = {name: words.split() for name, words in _TABLES["words"].items()}
_FRAGMENTS = {name: "|".join(words) for name, words in _LISTS.items()} | _TABLES["fragments"]


def _compile(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    while found := re.search(r"\{([a-z_]+)\}", pattern):
        pattern = pattern.replace(found[0], _FRAGMENTS[found[1]])
    return re.compile(pattern, re.VERBOSE | flags)


_ANSWERS = re.ASCII | re.IGNORECASE
PATTERNS = {name: _compile(pattern) for name, pattern in _TABLES["patterns"].items()}
PATTERNS |= {name: _compile(pattern, _ANSWERS) for name, pattern in _TABLES["answers"].items()}
NORMALIZATIONS = [(_compile(old, _ANSWERS), new) for old, new in _TABLES["normalizations"]["patterns"]]
WORDS = {name: frozenset(words) for name, words in _LISTS.items()}
VALUES = {Fraction(value): frozenset(words.split()) for value, words in _TABLES["values"].items()}
NUMBER_WORDS = WORDS["cardinals"].union(WORDS["scales"], *VALUES.values())
CURRENCIES = frozenset("$€£¥₹")

_LEXEME = _compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _TABLES["lexemes"].items()))
_OPERATORS = {text: sign for sign, texts in _TABLES["operators"].items() for text in texts.split()}
_KIND_LETTERS: dict[str, str] = _TABLES["kind_letters"]
_WORD_LETTERS = dict.fromkeys(NUMBER_WORDS, "n")
_WORD_LETTERS |= {word: letter for name, letter in _TABLES["word_letters"].items() for word in WORDS[name]}


class Lexeme(NamedTuple):
    """A word, number or sign of a text."""

    kind: str  # a key of the table "lexemes", but "skip" and "group"
    text: str  # an operator has one canonical spelling
    start: int
    end: int
    tight: bool  # whether no space separates it from the one before and, if it is an operator, the one after

    @property
    def value(self) -> Fraction:
        """Value of a number."""
        return Fraction(self.text.replace(",", ""))

    @property
    def letter(self) -> str:
        """The letter for what it is; see grammar.toml."""
        if self.kind == "word":
            word = self.text.lower()
            last = word.rpartition("-")[2]  # "twenty-five"
            return "s" if " " in word else _WORD_LETTERS.get(word) or _WORD_LETTERS.get(last, "w")
        return _KIND_LETTERS[self.kind]


def lex(text: str) -> list[Lexeme]:
    r"""Return the lexemes of a text, without markup and the braces of `\text{…}`."""
    lexemes, groups, last, in_latex = list[Lexeme](), list[bool](), -1, PATTERNS["latex"].search(text)
    for match in _LEXEME.finditer(text):
        kind, lexeme = match.lastgroup or "", match[0]
        if kind == "skip":
            continue
        if kind == "group" or lexeme == "{":
            groups.append(kind == "group")
        if kind == "group" or (lexeme == "}" and groups and groups.pop()):
            continue
        tight, last = match.start() == last, match.end()
        if kind == "operator":
            lexeme = _OPERATORS.get(lexeme, lexeme)
            tight &= not text[last : last + 1].isspace()
        if lexeme == "$" and in_latex:
            kind = "unknown"  # a delimiter of a formula
        lexemes.append(Lexeme(kind, lexeme, match.start(), last, tight))
    return lexemes
