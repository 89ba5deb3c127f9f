r"""Arithmetic as models write it in prose, read exactly: "3 apples * $1.50/apple", "\frac{3}{4} \times 8".

An expression that may be a part of a larger one, or may mean something else, is not read at all: whoever
computes its value would be wrong with confidence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile

from .final_answer import VULGAR
from .lexer import ENDS, Lexeme, lexemes
from .units import NUMBERING, TELLING, Quantity, UnclearError, parse_units

DIGITS = 18  # of the longest number read
_DEPTH = 20  # of parentheses within parentheses
_POWER = 64  # the largest exponent

_OPERANDS = ("number", "currency", "open", "fraction")  # what begins an expression
_CLOSING = {"(": ("close", ")"), "[": ("close", "]"), "{": ("brace", "}")}
_APART = ("end", "break", "open", "close", "brace", "word")  # what does not go on with one

# Words before a number: some make it another one, some join it to what stands before, some it merely names.
_CHANGING = re.compile(
    "hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|eighth)s?|tenths?|twice|double|triple|thrice|squared?|cubed?"
    "|root|sqrt|log|ln|sin|cos|tan|negative|dozen|hundred|thousand|(?:m|b|tr)illion|percent|than"
)
_JOINING = re.compile("times|plus|minus|over|divided|multiplied|less|mod|modulo|choose|per")
_NAMING = re.compile(
    "(?:step|day|week|month|year|question|problem|part|number|equation|example|case|option|method|page|chapter"
    "|room|phase|level|round|grade|item|group|team|line|row|box|bag|player|person|student|set|trip|lap)s?"
)
_ARTICLES = ("of", "the", "a", "as", "by")
_VARIABLE = re.compile(r"[^\Wi]|.*[\d_].*")
_CLOCK = re.compile(r"0\d")  # 0930, 007


@dataclass(frozen=True, slots=True)
class Expression:
    """What was read.

    Attributes:
        quantity: its value.
        operators: what joins its numbers, in order; none where it is a single number.
        lexemes: what it is made of.
    """

    quantity: Quantity
    operators: tuple[str, ...]
    lexemes: Sequence[Lexeme]

    def first(self, kind: str) -> str:
        """The text of the first lexeme of a kind; empty where there is none."""
        return next((lexeme.text for lexeme in self.lexemes if lexeme.kind == kind), "")


def read_before(text: str, start: int, end: int, whole: bool) -> Expression | None:
    """Read the expression that ends at a place.

    Args:
        text: as blanked() returns it.
        start: where to look from.
        end: where the expression ends.
        whole: nothing that belongs to it stands before `start`.

    Returns:
        The expression; None where it may be a part of something larger or mean something else.
    """
    pieces = list(lexemes(text, start, end, whole))
    first = _beginning(pieces)
    if first is None or not _free(pieces, first):
        return None
    found = _read(pieces[first:])
    return found if found and len(found.lexemes) == len(pieces) - first - 1 else None


def read_after(text: str, start: int, end: int) -> Expression | None:
    """Read the expression that begins at a place and ends by another, wherever it ends.

    Returns:
        The expression; None where it may go on with what follows it.
    """
    _, *pieces = lexemes(text, start, end)
    found = _read(pieces, apart=True)
    if found is None:
        return None
    after = pieces[len(found.lexemes)].kind
    counted = found.lexemes[-1].kind == "word"  # then a number that follows is another
    return found if after in _APART or (counted and after in _OPERANDS) else None


def _beginning(pieces: Sequence[Lexeme]) -> int | None:
    """Where the last expression begins: at the last operand that follows a word, or the end of a phrase."""
    for place in range(len(pieces) - 2, 0, -1):
        kind, before = pieces[place].kind, pieces[place - 1].kind
        if before == "break":
            negated = pieces[place].text == "-" and pieces[place + 1].tight
            return place if kind in _OPERANDS or negated else None
        if before in ("word", "compound") and kind in _OPERANDS:
            return place
    return None


def _free(pieces: Sequence[Lexeme], first: int) -> bool:
    """Whether nothing before an expression belongs to it."""
    place = first
    while pieces[place - 1].kind in ("word", "compound"):
        place -= 1
    words, before = [piece.text.lower() for piece in pieces[place:first]], pieces[place - 1]
    if pieces[first].kind == "open" and words and (pieces[first].tight or before.kind in ENDS):
        return False  # "f(3) + 1", "5 apples (3 red) + 2"
    last = next((word for word in reversed(words) if word not in _ARTICLES), "")
    if before.kind in ENDS and (_JOINING.fullmatch(last) or _pairs(words, pieces[first:])):
        return False
    if any(meaning.fullmatch(last.rpartition("-")[2]) for meaning in (_CHANGING, _NAMING, _VARIABLE)):
        return False
    if before.kind == "break":
        return not _continued(pieces[:place], pieces[first])
    return before.kind not in ("open", "operator") or (before.text == "/" and before.tight)


def _pairs(words: Sequence[str], pieces: Sequence[Lexeme]) -> bool:
    """Whether the words between two numbers make them one: "3 boxes of 12", "2 hours 30 minutes"."""
    joined = words[-1] == "and" or (len(words) == 1 and not TELLING.fullmatch(words[0]))
    counted = any(piece.kind == "word" for piece in pieces)
    return len(words) <= 3 and ("of" in words[-2:] or (joined and counted))


def _continued(pieces: Sequence[Lexeme], first: Lexeme) -> bool:
    """Whether an expression goes on with what stands before the break at the pieces' end."""
    line = list(takewhile(lambda piece: piece.kind != "break", reversed(pieces[:-1])))
    last = next((piece for piece in reversed(pieces) if piece.kind != "break"), None)
    if last and last.kind in ("operator", "open"):
        return True
    mark = pieces[-1].text.strip()[-1:]
    if mark == "," and line[1:] and line[0].kind == "number":
        return len(line[0].text) <= 3 == len(first.text)  # "in 14, 400 / 80"
    column = any(piece.kind == "operator" for piece in line)
    return column and mark in ("-", "\u2013", "*")  # of which the mark is the operator


def _read(pieces: Sequence[Lexeme], apart: bool = False) -> Expression | None:
    reader = _Reader(pieces, apart)
    try:
        quantity = reader.sum()
    except (UnclearError, ZeroDivisionError):
        return None
    return Expression(quantity, tuple(reader.operators), pieces[: reader.place])


class _Reader:
    """A parser by recursive descent: a method for each level of precedence, which reads from `place` on."""

    def __init__(self, pieces: Sequence[Lexeme], apart: bool) -> None:
        """Read pieces, the last an "end"; with `apart`, words that no operator follows need not be a unit."""
        self.pieces, self.apart = pieces, apart
        self.place = self.depth = 0
        self.operators: list[str] = []
        self.spaced = any(piece.kind == "operator" and not piece.tight for piece in pieces)

    @property
    def next(self) -> Lexeme:
        return self.pieces[self.place]

    @property
    def ahead(self) -> Lexeme:
        """The one after the next."""
        return self.pieces[min(self.place + 1, len(self.pieces) - 1)]

    def take(self, kind: str, *texts: str) -> Lexeme | None:
        """The next lexeme, passed, where it is of a kind and, if any are given, has one of the texts."""
        piece = self.next
        if piece.kind != kind or (texts and piece.text not in texts):
            return None
        self.place += 1
        return piece

    def operator(self, *texts: str) -> Lexeme | None:
        piece = self.take("operator", *texts)
        if piece:
            self.operators.append(piece.text)
        return piece

    def sum(self) -> Quantity:
        total = self.product()
        while operator := self.operator("+", "-"):
            term = self.product()
            if operator.text == "-" and operator.tight and self.spaced and total.value < term.value:
                raise UnclearError  # a range: "2-3 * 5"
            total += term if operator.text == "+" else -term
        return total

    def product(self) -> Quantity:
        value, last = self.signed(), None
        while operator := self.operator("*", "/", "of") or self.juxtaposed():
            part = value.percent or (0 < value.value < 1 and not value.over)
            if _clash(last, operator) or (operator.text == "of" and not part):
                raise UnclearError  # "2 of 3"
            factor, last = self.signed(), operator
            value = value / factor if operator.text == "/" else value * factor
            if operator.text == "of" and self.next.text in ("+", "-"):
                raise UnclearError  # "20% of 85 + 15"
        return value

    def juxtaposed(self) -> Lexeme | None:
        """The parenthesis of "2(3 + 4)", not passed."""
        if self.next.kind != "open" or not self.next.tight:
            return None
        if self.pieces[self.place - 1].kind not in ("number", "close"):
            return None
        self.operators.append("*")
        return self.next

    def signed(self) -> Quantity:
        if self.next.kind == "operator" and self.next.text == "-" and self.ahead.tight:
            self.place += 1
            return -self.operand()
        return self.operand()

    def operand(self) -> Quantity:
        symbol = self.take("currency")
        value = self.primary()
        if self.operator("^"):
            value **= self.exponent()
        if self.take("percent"):
            value = replace(value, percent=True)
        symbol = symbol or self.take("currency")
        if value.over and (symbol or value.percent):
            raise UnclearError
        over, under = self.units(bool(symbol or value.over))
        money = {symbol.text[-1]} if symbol else set()
        return replace(value, over=value.over | over | money, under=value.under | under)

    def primary(self) -> Quantity:
        if number := self.take("number"):
            return Quantity(_number(number.text))
        if self.take("fraction"):
            over = self.enclosed("brace")
            self.operators.append("/")
            return over / self.enclosed("brace")
        return self.enclosed("open")

    def enclosed(self, kind: str) -> Quantity:
        opening = self.take(kind)
        self.depth += 1
        if not opening or opening.text not in _CLOSING or self.depth > _DEPTH:
            raise UnclearError
        value = self.sum()
        if not self.take(*_CLOSING[opening.text]):
            raise UnclearError
        self.depth -= 1
        return value

    def exponent(self) -> int:
        braced = self.take("brace", "{")
        number = self.take("number")
        if not number or not number.text.isdecimal() or int(number.text) > _POWER:
            raise UnclearError
        if braced and not self.take("brace", "}"):
            raise UnclearError
        return int(number.text)

    def units(self, counted: bool) -> tuple[frozenset[str], frozenset[str]]:
        """What stands behind a number: "red apples", "miles/hour"; "/hour" where it counts something."""
        glued = self.next.kind == "word" and self.next.tight
        words = self.words()
        counted |= self.apart and len(self.ahead.text) > 1
        while (words or counted) and self.next.text == "/" and self.ahead.kind == "word":
            self.place += 1
            words += ["per", *self.words()]
        if self.apart and self.next.kind != "operator":
            near = words[1:3] if words[:1] == ["and"] else words[:1]  # "3 and a half"
            if not glued and not any(map(NUMBERING.fullmatch, near)) and "remainder" not in words:
                words = []
        return parse_units(words, glued)

    def words(self) -> list[str]:
        words = []
        while word := self.take("word"):
            words.append(word.text.lower())
        return words


def _clash(last: Lexeme | None, operator: Lexeme) -> bool:
    """Whether the second of two operators may be meant to bind first: "8 / 1/2", "6/2(1 + 2)"."""
    if last is None or last.text != "/" or not operator.tight:
        return False
    return operator.kind == "open" or not last.tight


def _number(text: str) -> Fraction:
    """The value of a number; a mixed one's parts stand apart: "2 1/2", "2 and 1/2", "2½"."""
    parts = text.replace(",", "").replace("and", " ").translate(VULGAR).split()
    values = [Fraction(part) for part in parts]
    digits = max(len(part.replace(".", "")) for part in parts)
    if digits > DIGITS or _CLOCK.match(text) or not all(0 < part < 1 for part in values[1:]):
        raise UnclearError
    return sum(values, Fraction())
