"""Lexer for arithmetic in prose, Markdown and LaTeX: blanks out markup and splits the rest into lexemes."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .final_answer import DECIMAL, VULGAR_FRACTIONS
from .units import CURRENCIES

# All patterns take linear time; the tests measure it.
_MARKUP = re.compile(
    r"""\\\\  |  \\(?:text|math|boxed|operatorname)[a-z]*\s?\{(?P<content>[^{}]*)\}
    | \\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|q?quad)(?![a-zA-Z])|[()\[\],;:!\ ])
    | (?<![\w)])\*\*(?=\S) | (?<=\S)\*\*(?![\w(-]) | (?<=[.:!?])\*(?=\s) | (?<=[^\W\d_])\*(?=[ \t]*\n)
    | \$\$ | [`&]""",
    re.VERBOSE,
)

# A bullet or number that begins a list item, where it is no operator.
_LIST_MARKER = r"(?:[-*\u2022\u2013]|\(?(?:\d{1,2}|[a-zA-Z])[.)](?![ \t]+[-+*/]))[ \t]+"
_LINE_START = rf"(?:\A|\n)(?:[ \t>]|\#+[ \t])*(?:{_LIST_MARKER})*"
_VULGAR = "".join(map(chr, VULGAR_FRACTIONS))
_LETTER = rf"[^\W\d_{_VULGAR}]"
_TIMES = "\u00d7\u00b7\u22c5\u2217\u2219"
_MINUS = "\u2212\u2010\u2011\u2013"
_OVER = "\u00f7\u2044"
_PATTERNS = {
    "break": rf"""{_LINE_START} | [.!?]+(?!\S) | \.{{2,}} | \u2026 | ,(?!\S) | [;|"\u201c\u201d\u2192]
        | -{{1,2}}> | -{{3,}} | \*{{3,}} | << | >> | (?<![\d\s]):|(?<=\d):(?=\s)|(?<=[^\d\s]\s):""",
    "date": r"(?<!\d)(?:\d{1,2}/\d{1,2}/(?:19|20)\d\d | (?:19|20)\d\d-[01]\d-[0-3]\d)(?!\d)",
    "compound": rf"\d+(?:\.\d+)?-{_LETTER}[\w-]*",
    "number": rf"(?a:\d+(?:[ ]and)?[ ]\d+/\d+(?![\d./]) | \d*[ ]?[{_VULGAR}] | {DECIMAL})",
    "percent": r"\\?% | percent\b",
    "currency": rf"\\?\$ | [{CURRENCIES}]",
    "fraction": r"\\[dt]?frac(?![a-zA-Z])",
    "operator": rf"""[-+*/^{_TIMES}{_MINUS}{_OVER}] | \\(?:times|cdot|div)(?![a-zA-Z])
        | (?<=[\d)])(?<!\b0)[xX](?=\s?[\d{CURRENCIES}]) | (?<=\s)[xX](?=\s+[\d{CURRENCIES}{_VULGAR}(.\\])
        | \bof(?=\s+\\?[\d{CURRENCIES}(.])""",
    "word": rf"{_LETTER}\w*(?:['\u2019-]{_LETTER}\w*)*",
    "open": r"[(\[]",
    "close": r"[)\]]",
    "brace": r"[{}]",
    "unknown": r"\\[a-zA-Z]+ | \S",
}
OPERAND_ENDS = ("number", "percent", "currency", "close", "brace")  # kinds that end an operand, besides words
_LEXEME = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()), re.VERBOSE)
_LATEX_OPERATOR = re.compile(r"\\(?:times|cdot|div|[dt]?frac)")
_OPERATORS = {
    **dict.fromkeys((*_TIMES, "x", "X", r"\times", r"\cdot"), "*"),
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys((*_OVER, r"\div"), "/"),
}


class Lexeme(NamedTuple):
    """A lexeme of a text.

    Attributes:
        kind: a key of the table of patterns, or "end".
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
