"""How sums are written in prose, Markdown and LaTeX: markup to pass over, and the lexemes of what remains."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .final_answer import DECIMAL, VULGAR
from .units import MONEY

# All patterns take linear time; the tests measure it.
_MARKUP = re.compile(
    r"""\\\\  |  \\(?:text|math|boxed|operatorname)[a-z]*\s?\{(?P<inside>[^{}]*)\}
    | \\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|q?quad)(?![a-zA-Z])|[()\[\],;:!\ ])
    | (?<![\w)])\*\*(?=\S) | (?<=\S)\*\*(?![\w(-]) | (?<=[.:!?])\*(?=\s) | (?<=[^\W\d_])\*(?=[ \t]*\n)
    | \$\$ | [`&]""",
    re.VERBOSE,
)

# What begins a list's line, where it is no operator.
_MARKER = r"(?:[-*\u2022\u2013]|\(?(?:\d{1,2}|[a-zA-Z])[.)](?![ \t]+[-+*/]))[ \t]+"
_MARKERS = rf"(?:\A|\n)(?:[ \t>]|\#+[ \t])*(?:{_MARKER})*"
_VULGAR = "".join(map(chr, VULGAR))
_LETTER = rf"[^\W\d_{_VULGAR}]"
_TIMES = "\u00d7\u00b7\u22c5\u2217\u2219"
_MINUS = "\u2212\u2010\u2011\u2013"
_OVER = "\u00f7\u2044"
_KINDS = {
    "break": rf"""{_MARKERS} | [.!?]+(?!\S) | \.{{2,}} | \u2026 | ,(?!\S) | [;|"\u201c\u201d\u2192]
        | -{{1,2}}> | -{{3,}} | \*{{3,}} | << | >> | (?<![\d\s]):|(?<=\d):(?=\s)|(?<=[^\d\s]\s):""",
    "date": r"(?<!\d)(?:\d{1,2}/\d{1,2}/(?:19|20)\d\d | (?:19|20)\d\d-[01]\d-[0-3]\d)(?!\d)",
    "compound": rf"\d+(?:\.\d+)?-{_LETTER}[\w-]*",
    "number": rf"(?a:\d+(?:[ ]and)?[ ]\d+/\d+(?![\d./]) | \d*[ ]?[{_VULGAR}] | {DECIMAL})",
    "percent": r"\\?% | percent\b",
    "currency": rf"\\?\$ | [{MONEY}]",
    "fraction": r"\\[dt]?frac(?![a-zA-Z])",
    "operator": rf"""[-+*/^{_TIMES}{_MINUS}{_OVER}] | \\(?:times|cdot|div)(?![a-zA-Z])
        | (?<=[\d)])(?<!\b0)[xX](?=\s?[\d{MONEY}]) | (?<=\s)[xX](?=\s+[\d{MONEY}{_VULGAR}(.\\])
        | \bof(?=\s+\\?[\d{MONEY}(.])""",
    "word": rf"{_LETTER}\w*(?:['\u2019-]{_LETTER}\w*)*",
    "open": r"[(\[]",
    "close": r"[)\]]",
    "brace": r"[{}]",
    "unknown": r"\\[a-zA-Z]+ | \S",
}
ENDS = ("number", "percent", "currency", "close", "brace")  # what may end an operand, beside words
_LEXEMES = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in _KINDS.items()), re.VERBOSE)
_LATEX = re.compile(r"\\(?:times|cdot|div|[dt]?frac)")
_SIGNS = {
    **dict.fromkeys((*_TIMES, "x", "X", r"\times", r"\cdot"), "*"),
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys((*_OVER, r"\div"), "/"),
}


class Lexeme(NamedTuple):
    """A piece of a text.

    Attributes:
        kind: a name in the table above, or "end".
        text: what stands there; of an operator, the one sign for all that mean it.
        start: where it stands.
        end: where it ends.
        tight: it follows the one before without a space and, if it is an operator, is so followed too.
    """

    kind: str
    text: str
    start: int
    end: int
    tight: bool


def blank_markup(text: str) -> str:
    """The text with spaces for its markup, each character in its place; a LaTeX line break becomes one."""
    return _MARKUP.sub(_blank, text)


def lexemes(text: str, start: int, end: int, whole: bool = True) -> Iterator[Lexeme]:
    """The lexemes between two places, between one for what stands before them and an "end".

    Args:
        text: as blank_markup() returns it.
        start: where to begin.
        end: where to end.
        whole: nothing that belongs to them stands before; then the first is a "break", else "unknown".
    """
    yield Lexeme("break" if whole else "unknown", "", start, start, False)
    latex, last, before = _LATEX.search(text, start, end), start, ""
    for found in _LEXEMES.finditer(text, start, end):
        kind, piece = found.lastgroup or "", found[0]
        if piece == "$" and latex:
            continue  # a delimiter: there, money is \$
        tight = found.start() == last
        if kind == "operator":
            piece = _SIGNS.get(piece, piece)
            tight &= not text[found.end() : found.end() + 1].isspace()
        if piece == "of" and before not in ENDS:
            kind = "word"
        yield Lexeme(kind, piece, found.start(), found.end(), tight)
        last, before = found.end(), kind
    yield Lexeme("end", "", end, end, False)


def _blank(found: re.Match[str]) -> str:
    if found[0] == r"\\":
        return "\n "
    inside = found["inside"] or ""
    return inside.rjust(len(found[0]) - bool(inside)).ljust(len(found[0]))
