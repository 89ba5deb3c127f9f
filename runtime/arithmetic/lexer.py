"""Lexer for arithmetic in prose, Markdown and LaTeX: blanks out markup and splits the rest into lexemes."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .notation import NOTATION

OPERAND_ENDS = NOTATION.lists["kinds"]["operand_ends"]  # kinds that end an operand, besides words
_OPERATORS = NOTATION.texts["operators"]
_MARKUP = NOTATION.patterns["markup"]
_LEXEME = NOTATION.patterns["lexeme"]
_FIRST_LINE = NOTATION.patterns["first_line"]
_LATEX_OPERATOR = NOTATION.patterns["latex_operator"]


class Lexeme(NamedTuple):
    """A lexeme of a text.

    Attributes:
        kind: a key of the table "lexemes", or "end".
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


def blank_markup(text: str) -> str:
    """Replace markup with spaces, which keeps all positions; a LaTeX line break becomes a newline."""
    return _MARKUP.sub(_blank, text)


def lex(text: str, start: int, end: int, bounded: bool = True) -> Iterator[Lexeme]:
    """Yield the lexemes between two positions, framed by one for the text before them and an "end".

    Args:
        text: result of blank_markup().
        start: position of the first character.
        end: position after the last character.
        bounded: whether no expression can begin before `start`. The first lexeme is then a "break", else
            "unknown".
    """
    yield Lexeme("break" if bounded else "unknown", "", start, start, False)
    in_latex, last, previous = _LATEX_OPERATOR.search(text, start, end), start, ""
    if start == 0 and (markers := _FIRST_LINE.match(text, 0, end)):
        yield Lexeme("break", markers[0], 0, markers.end(), True)
        start = last = markers.end()
    for match in _LEXEME.finditer(text, start, end):
        kind, lexeme = match.lastgroup or "", match[0]
        if lexeme == "$" and in_latex:
            continue  # a math delimiter; LaTeX writes money as \$
        tight = match.start() == last
        if kind == "operator":
            lexeme = _OPERATORS.get(lexeme, lexeme)
            tight &= not text[match.end() : match.end() + 1].isspace()
        if lexeme == "of" and previous not in OPERAND_ENDS:
            kind = "word"
        yield Lexeme(kind, lexeme, match.start(), match.end(), tight)
        last, previous = match.end(), kind
    yield Lexeme("end", "", end, end, False)


def _blank(match: re.Match[str]) -> str:
    if match[0] == r"\\":
        return "\n "
    content = match["content"] or ""
    return content.rjust(len(match[0]) - bool(content)).ljust(len(match[0]))
