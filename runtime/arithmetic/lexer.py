"""Lexer for arithmetic in prose, Markdown and LaTeX."""

from fractions import Fraction
from typing import NamedTuple

from .notation import NOTATION

_OPERATORS = NOTATION.texts["operators"]
_LEXEME, _LATEX = NOTATION.patterns["lexeme"], NOTATION.patterns["latex"]


class Lexeme(NamedTuple):
    """A lexeme of a text.

    Attributes:
        kind: a key of the table "lexemes".
        text: the characters; an operator has one canonical spelling.
        start: position of the first character.
        end: position after the last character.
        tight: whether no space separates it from the lexeme before and, for an operator, from the one after.
    """

    kind: str
    text: str
    start: int
    end: int
    tight: bool

    @property
    def value(self) -> Fraction:
        """Value of a number."""
        return Fraction(self.text.replace(",", ""))


def lex(text: str, start: int = 0) -> list[Lexeme]:
    r"""Return the lexemes from a position on, without markup and the braces of `\text{…}`."""
    lexemes, groups, last, in_latex = list[Lexeme](), list[bool](), -1, _LATEX.search(text)
    for match in _LEXEME.finditer(text, start):
        kind, lexeme = match.lastgroup or "", match[0]
        if kind == "skip":
            continue
        if kind == "group" or lexeme == "{":
            groups.append(kind == "group")
        if kind == "group" or (lexeme == "}" and groups and groups.pop()):
            continue
        tight, between, last = match.start() == last, text[max(last, 0) : match.start()], match.end()
        if kind == "operator":
            lexeme = _OPERATORS.get(lexeme, lexeme)
            tight &= not text[last : last + 1].isspace()
        if (kind == "operator" and "\n" in between) or (lexeme == "$" and in_latex):
            kind = "unknown"  # a bullet, a delimiter of a formula
        lexemes.append(Lexeme(kind, lexeme, match.start(), last, tight))
    return lexemes
