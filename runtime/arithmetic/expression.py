r"""Parser for arithmetic expressions in prose: "3 apples * $1.50/apple", "\frac{3}{4} \times 8".

An expression that may be part of a larger one, or may mean something else, is not parsed at all: its result
would be wrong with confidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import dropwhile, takewhile

from .final_answer import VULGAR_FRACTIONS
from .lexer import OPERAND_ENDS, Lexeme, lex
from .notation import NOTATION
from .units import (
    CARDINALS,
    CLAUSES,
    CONNECTIVES,
    AmbiguityError,
    Quantity,
    is_arithmetic,
    is_variable,
    parse_result_units,
    parse_units,
)

DIGITS_MAX = NOTATION.limits["digits"]  # of a number
_NESTING_MAX = NOTATION.limits["nesting"]  # parentheses
_EXPONENT_MAX = NOTATION.limits["exponent"]

_OPERAND_STARTS, _WORDS = NOTATION.lists["kinds"]["operand_starts"], NOTATION.lists["kinds"]["words"]
_ENDS = NOTATION.lists["kinds"]["ends"]  # kinds that end a clause
_OF_SUMS = (*OPERAND_ENDS, "operator")
_NOTHING = Lexeme("end", "", 0, 0, False)
_GROUP_DIGITS = 3  # that a separator of thousands is followed by
_CLOSING = {opening: tuple(closing) for opening, closing in NOTATION.lists["brackets"].items()}

# An expression stands by itself only after these words: after a statement whatever came before it, after an
# introducer if no words before it calculate.
_STATEMENTS, _INTRODUCERS = NOTATION.words("statements"), NOTATION.words("introducers")
_AMOUNTS, _PRONOUNS = NOTATION.words("amounts"), NOTATION.words("pronouns")
_PREPOSITIONS, _FUNCTIONS = NOTATION.words("prepositions"), NOTATION.words("functions")
_PLACES = NOTATION.words("places")  # a number after them is not added to the result before them
_WHOLES = NOTATION.words("wholes")  # a result that they follow is a rounded one


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Attributes:
        quantity: its value.
        operators: operators in order; empty for a single number.
        lexemes: all of its lexemes.
    """

    quantity: Quantity
    operators: tuple[str, ...]
    lexemes: Sequence[Lexeme]

    def first(self, kind: str) -> str:
        """The text of the first lexeme of a kind; empty if there is none."""
        return next((lexeme.text for lexeme in self.lexemes if lexeme.kind == kind), "")


def parse_left_side(text: str, start: int, end: int, bounded: bool) -> Expression | None:
    """Parse the expression that ends at a position.

    Args:
        text: result of blank_markup().
        start: position of the first character to read.
        end: position after the expression.
        bounded: whether the expression cannot begin before `start`.

    Returns:
        The expression; None if it may be part of a larger one or mean something else.
    """
    lexemes = list(lex(text, start, end, bounded))
    first = _expression_start(lexemes)
    if first is None or not _is_independent(lexemes, first):
        return None
    expression = _parse(lexemes[first:])
    return expression if expression and len(expression.lexemes) == len(lexemes) - first - 1 else None


def parse_right_side(text: str, start: int, end: int, bounded: bool) -> Expression | None:
    """Parse the expression that begins at a position and ends at or before another.

    Args:
        text: result of blank_markup().
        start: position of the expression.
        end: position after the last character to read.
        bounded: whether no expression can continue beyond `end`.

    Returns:
        The expression; None if it may continue in the text after it.
    """
    _, *lexemes, last = lex(text, start, end)
    lexemes.append(last if bounded else last._replace(kind="unknown"))
    expression = _parse(lexemes, before_prose=True)
    if expression is None:
        return None
    rest, value = lexemes[len(expression.lexemes) :], expression.quantity
    noun = takewhile(lambda lexeme: lexeme.kind == "word" or lexeme.text == "/", rest)
    words = ["per" if lexeme.text == "/" else lexeme.text.lower() for lexeme in noun]
    units = parse_result_units(words, abbreviated=rest[0].tight)
    if units is None or not _is_complete(rest, counted=bool(value.units)):
        return None
    quantity = replace(value, units=value.units | units[0], per=value.per | units[1])
    return replace(expression, quantity=quantity)


def _expression_start(lexemes: Sequence[Lexeme]) -> int | None:
    """Find the last operand that follows a word, or what follows the last break if that begins an operand."""
    for index in range(len(lexemes) - 2, 0, -1):
        kind, previous = lexemes[index].kind, lexemes[index - 1].kind
        if previous == "break":
            negated = lexemes[index].text == "-" and lexemes[index + 1].tight
            return index if kind in _OPERAND_STARTS or negated else None
        if previous in _WORDS and kind in _OPERAND_STARTS:
            return index
    return None


def _is_independent(lexemes: Sequence[Lexeme], first: int) -> bool:
    """Return whether nothing before an expression belongs to it: the word before it must be a known one."""
    before = lexemes[:first]
    if before[-1].kind == "break":
        return not _continues(before, lexemes[first])
    clause = list(takewhile(lambda lexeme: lexeme.kind != "break", reversed(before)))
    if len(clause) == 1 and before[-1].text.lower() == "and":  # ", and 3 + 4"
        line = takewhile(lambda lexeme: lexeme.kind != "break", reversed(before[:-2]))
        return not (_calculates(line) or _continues(before[:-1], lexemes[first]))
    words = [lexeme.text.lower() for lexeme in takewhile(lambda lexeme: lexeme.kind in _WORDS, clause)]
    previous = before[-1 - len(words)]
    joined = previous.kind in ("open", "operator") and not (previous.text == "/" and previous.tight)
    amount = words[0] == "of" and not _AMOUNTS.isdisjoint(words[1:2])
    skipped = _PRONOUNS | {"a", "the"} if amount else _PRONOUNS  # "gives us a total of"
    word = next((word for word in words[2 * amount :] if word not in skipped), "")
    if joined or word in _STATEMENTS:
        return not joined
    if len(clause) == first or _calculates(clause):
        return False  # the clause may begin before the window
    if amount:
        return True
    has_number = previous.kind in OPERAND_ENDS or not CARDINALS.isdisjoint("-".join(words).split("-"))
    return word in _INTRODUCERS | _STATEMENTS and not (word in _PREPOSITIONS and has_number)


def _calculates(clause: Iterable[Lexeme]) -> bool:
    return any(lexeme.kind == "percent" or is_arithmetic(lexeme.text, _FUNCTIONS) for lexeme in clause)


def _continues(before: Sequence[Lexeme], first: Lexeme) -> bool:
    """Return whether an expression continues the text before the break that it follows."""
    mark = before[-1].text.strip()[-1:]
    if mark in ("-", "\u2013"):
        return True  # a bullet, or a sign
    last = next((lexeme for lexeme in reversed(before) if lexeme.kind != "break"), None)
    if last is None:
        return False
    separated, ended = before[-1].text[:1] in (":", "\n"), before[-1].text[:1] in (".", "!", "?")
    others = frozenset() if separated else _FUNCTIONS | CARDINALS
    operands = CARDINALS if ended else _FUNCTIONS | CARDINALS
    stranded = (separated or ended) and _is_stranded(last, before, operands)
    preposition = last.text.lower() in _PREPOSITIONS and not stranded
    if last.kind in ("operator", "open") or is_arithmetic(last.text, others) or preposition:
        return True
    if mark == "*":
        return last.kind in OPERAND_ENDS  # "12\n* 5": the mark is an operator
    if mark != "," or last.kind not in OPERAND_ENDS:
        return False
    after_sign = before[0].start > 0 and all(lexeme.kind in _OF_SUMS for lexeme in before[1:-1])
    return not after_sign or len(first.text) == _GROUP_DIGITS  # "the sum of 5, 3 + 4", "in 14, 400 / 80"


def _is_stranded(last: Lexeme, before: Sequence[Lexeme], others: frozenset[str]) -> bool:
    """Return whether a word ends a sentence without calculation: "what she began with: 3 + 4"."""
    sentence = dropwhile(lambda lexeme: lexeme.kind == "break", reversed(before))
    return last.text.lower() in _INTRODUCERS and all(
        lexeme.text == "," or (lexeme.kind == "word" and not is_arithmetic(lexeme.text, others))
        for lexeme in takewhile(lambda lexeme: lexeme.kind != "break" or lexeme.text == ",", sentence)
    )


def _is_complete(rest: Sequence[Lexeme], counted: bool) -> bool:
    """Return whether the clause after a result has no more arithmetic.

    A number after a unit and a preposition of place is none: "15 apples in 4 boxes".
    """
    in_place, last, before_last = False, _NOTHING, _NOTHING
    for index, lexeme in enumerate(rest):
        word = lexeme.text.lower()
        if lexeme.kind == "word":
            if word in CLAUSES:
                return True
            in_place |= word in _PLACES and (counted or last.kind == "word")
            in_place &= word not in CONNECTIVES
            if is_arithmetic(word, _WHOLES if in_place else _WHOLES | CARDINALS) or is_variable(word):
                return False
        elif lexeme.kind in _ENDS and word != ",":
            return last.kind != "number" and last.text not in _PREPOSITIONS  # "3 people in 4"
        elif "," in (last.text, before_last.text) and lexeme.kind in _OPERAND_STARTS:
            operators = [lexeme.text for lexeme in rest[index : index + 3] if lexeme.kind == "operator"]
            is_sum = operators != [] and operators[0] != "/"
            return is_sum and last.text in (",", "and") and len(word) != _GROUP_DIGITS
        elif lexeme.kind not in ("break", "open") and not (
            word == "/" or (in_place and lexeme.kind in _OPERAND_STARTS)
        ):
            return False
        before_last, last = last, lexeme
    return False


def _parse(lexemes: Sequence[Lexeme], before_prose: bool = False) -> Expression | None:
    parser = _ExpressionParser(lexemes, before_prose)
    try:
        quantity = parser.sum()
    except AmbiguityError:
        return None
    return Expression(quantity, tuple(parser.operators), lexemes[: parser.position])


class _ExpressionParser:
    """Recursive-descent parser with one method per level of precedence.

    Attributes:
        lexemes: the last has the kind "end".
        before_prose: whether prose may follow; words without an operator after them are then left out.
        position: index of the next lexeme.
        operators: the operators so far, in order.
    """

    def __init__(self, lexemes: Sequence[Lexeme], before_prose: bool) -> None:
        self.lexemes, self.before_prose = lexemes, before_prose
        self.position = self._nesting = 0
        self.operators: list[str] = []
        self._spaced = any(lexeme.kind == "operator" and not lexeme.tight for lexeme in lexemes)

    @property
    def _next(self) -> Lexeme:
        return self.lexemes[self.position]

    @property
    def _second(self) -> Lexeme:
        return self.lexemes[min(self.position + 1, len(self.lexemes) - 1)]

    def _accept(self, kind: str, *texts: str) -> Lexeme | None:
        """Consume the next lexeme if it has this kind and, if texts are given, one of them."""
        lexeme = self._next
        if lexeme.kind != kind or (texts and lexeme.text not in texts):
            return None
        self.position += 1
        return lexeme

    def _operator(self, *texts: str) -> Lexeme | None:
        lexeme = self._accept("operator", *texts)
        if lexeme:
            self.operators.append(lexeme.text)
        return lexeme

    def sum(self) -> Quantity:
        total = self._product()
        while operator := self._operator("+", "-"):
            term = self._product()
            if operator.text == "-" and operator.tight and self._spaced and total.value < term.value:
                raise AmbiguityError  # a range: "2-3 * 5"
            total += term if operator.text == "+" else -term
        return total

    def _product(self) -> Quantity:
        value, last = self._signed(), None
        while operator := self._operator("*", "/", "of") or self._implicit_product():
            is_share = value.percent or (0 < value.value < 1 and not value.units)
            if _is_ambiguous(last, operator):
                raise AmbiguityError
            if operator.text == "of" and not is_share:
                raise AmbiguityError  # "2 of 3"
            factor, last = self._signed(), operator
            value = value / factor if operator.text == "/" else value * factor
            if operator.text == "of" and self._next.text in ("+", "-"):
                raise AmbiguityError  # "20% of 85 + 15"
        return value

    def _implicit_product(self) -> Lexeme | None:
        """Return the parenthesis of "2(3 + 4)" without consuming it."""
        if self._next.kind != "open" or not self._next.tight:
            return None
        if self.lexemes[self.position - 1].kind not in ("number", "close"):
            return None
        self.operators.append("*")
        return self._next

    def _signed(self) -> Quantity:
        if self._next.kind == "operator" and self._next.text == "-" and self._second.tight:
            self.position += 1
            return -self._operand()
        return self._operand()

    def _operand(self) -> Quantity:
        currency = self._accept("currency")
        value = self._primary()
        if self._operator("^"):
            value **= self._exponent()
            if self._next.text == "^":
                raise AmbiguityError  # "2^3^2"
        if self._accept("percent"):
            value = replace(value, percent=True)
        currency = currency or self._accept("currency")
        if value.units and (currency or value.percent):
            raise AmbiguityError
        units, per = self._units(bool(currency or value.units), single=value == Quantity(Fraction(1)))
        symbol = {currency.text[-1]} if currency else set()
        return replace(value, units=value.units | units | symbol, per=value.per | per)

    def _primary(self) -> Quantity:
        last = self.lexemes[self.position - 1]
        if number := self._accept("number"):
            if last.kind == "operator" and _is_two_numbers(last, number):
                raise AmbiguityError
            return Quantity(parse_mixed_number(number.text))
        if self._accept("fraction"):
            numerator = self._group("brace")
            self.operators.append("/")
            return numerator / self._group("brace")
        return self._group("open")

    def _group(self, kind: str) -> Quantity:
        opening = self._accept(kind)
        self._nesting += 1
        if not opening or opening.text not in _CLOSING or self._nesting > _NESTING_MAX:
            raise AmbiguityError
        value = self.sum()
        if not self._accept(*_CLOSING[opening.text]):
            raise AmbiguityError
        self._nesting -= 1
        return value

    def _exponent(self) -> int:
        braced = self._accept("brace", "{")
        number = self._accept("number")
        if not number or not number.text.isdecimal() or int(number.text) > _EXPONENT_MAX:
            raise AmbiguityError
        if braced and not self._accept("brace", "}"):
            raise AmbiguityError
        return int(number.text)

    def _units(self, has_unit: bool, single: bool) -> tuple[frozenset[str], frozenset[str]]:
        """Parse the unit after a number: "red apples", "miles/hour", or "/hour" if the number has a unit."""
        start, abbreviated = self.position, self._next.kind == "word" and self._next.tight
        words = self._words()
        has_unit |= self.before_prose and len(self._second.text) > 1
        while (words or has_unit) and self._next.text == "/" and self._second.kind == "word":
            self.position += 1
            words += ["per", *self._words()]
        if self.before_prose and self._next.kind != "operator":
            self.position, words, abbreviated = start, [], False  # see parse_result_units()
        return parse_units(words, abbreviated=abbreviated, single=single)

    def _words(self) -> list[str]:
        words = []
        while word := self._accept("word"):
            words.append(word.text.lower())
        return words


def _is_ambiguous(last: Lexeme | None, operator: Lexeme) -> bool:
    """Return whether an operator after a division may be meant to bind first: "8 / 1/2", "6/2(1 + 2)"."""
    if last is None or last.text != "/" or not operator.tight:
        return False
    return operator.kind == "open" or not last.tight


def _is_two_numbers(operator: Lexeme, number: Lexeme) -> bool:
    """Return whether a mixed number may be two: "1/2 1/2" and "3 * 4 and 1/2" contain no 2 1/2 and 4 1/2."""
    return "and" in number.text or (operator.text == "/" and number.tight and " " in number.text)


def parse_mixed_number(text: str) -> Fraction:
    """Parse a number with an optional fraction: "12", "2 1/2", "2 and 1/2", "2½".

    Raises:
        AmbiguityError: it is none, or too long.
    """
    parts = text.replace(",", "").replace("and", " ").translate(VULGAR_FRACTIONS).split()
    try:
        values = [Fraction(part) for part in parts]
    except (ValueError, ZeroDivisionError):  # of more digits than int() reads
        raise AmbiguityError from None
    if (
        max(len(part.replace(".", "")) for part in parts) > DIGITS_MAX
        or (text[:1] == "0" and (text[1:2].isdecimal() or text[1:2] == ","))  # 007, or 0,5 with zeros
        or not all(0 < part < 1 for part in values[1:])
    ):
        raise AmbiguityError
    return sum(values, Fraction())
