"""Sums that come out right: the result due while a model writes, and a check of every equation it wrote."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from .expression import DIGITS, Expression, read_after, read_before
from .final_answer import format_number
from .lexer import blank_markup
from .units import MONEY

_REACH = 300  # characters before and after a sign that are looked at
_PLACES = 6  # after the point, of a result that is written
_CENTS = 2  # of money

_EXACT = ("=", "is")
_ROUNDING = ("\u2248", r"\approx")
_SIGN = re.compile(r"[<>!:]?=[=<>]*|\u2248|\\approx(?![a-zA-Z])|\bis\b")
_ABOUT = re.compile(r"\s*(?:about|approximately|roughly)\b", re.IGNORECASE)
_ENDING = " \t\n\\&"  # before a sign that begins a line
_ANNOTATED = re.compile(r"(?<==)\s?<<[^<>\n]*>>")  # GSM8K's "3 * 4 = <<3*4=12>>12"


@dataclass(frozen=True, slots=True)
class Step:
    """An equation that a text holds.

    Attributes:
        expression: its left side, as it stands there.
        claimed: the value of its right side, as format_number() writes it.
        computed: the value of its left side, likewise, in percent where the right side is.
        ok: both are the same, or what is claimed is what was computed, rounded: to decimal places, or to
            a whole number where the text says that it rounds.
    """

    expression: str
    claimed: str
    computed: str
    ok: bool


def pending_result(text: str) -> str | None:
    """The result with which a text goes on that ends in a sum and "=", or in "20% of 85 is".

    Returns:
        The characters to append, in the form that the sum has: with its symbol of a currency, its separators
        of thousands. None where nothing is due, the result is no decimal of few places, or what the sum is
        may be doubted.
    """
    if not text.endswith(("=", "= ", "is", "is ")):
        return None
    cut = len(text) > _REACH
    window = text[-_REACH - 1 :] if cut else text  # with the character before, for what looks behind
    plain = blank_markup(window)
    signs = list(_SIGN.finditer(plain))
    if not signs or signs[-1][0] not in _EXACT or len(plain) - signs[-1].end() > 1:
        return None
    sign, start = signs[-1], signs[-2].end() if signs[1:] else int(cut)
    left = _left(plain, start, sign, whole=bool(signs[1:]) or not cut)
    result = _written(left) if left else None
    if result is None or sign.end() < len(plain):
        return result
    return f" {result}" if sign[0] == "is" or window[: sign.start()][-1:].isspace() else result


def steps(text: str) -> tuple[Step, ...]:
    """Every equation of a text whose sides are understood, in order."""
    plain = _ANNOTATED.sub(lambda found: " " * len(found[0]), blank_markup(text))
    signs = list(_SIGN.finditer(plain))
    starts = [0, *(sign.end() for sign in signs)]
    ends = [*(sign.start() for sign in signs[1:]), len(plain)]
    found = (
        _step(text, plain, start, sign, end) for start, sign, end in zip(starts, signs, ends, strict=False)
    )
    return tuple(step for step in found if step)


def verified(steps: Sequence[Step], value: str | None) -> bool:
    """Whether a text's equations hold and its final answer, as format_number() writes it, is one's result."""
    return all(step.ok for step in steps) and any(value in (step.claimed, step.computed) for step in steps)


def _left(plain: str, start: int, sign: re.Match[str], whole: bool) -> Expression | None:
    """The sum before an equals sign, or before "is" where it is a share."""
    end = start + len(plain[start : sign.start()].rstrip())  # the sign may begin a line
    left = read_before(plain, start, end, whole)
    if left is None or not left.operators:
        return None
    share = left.operators == ("of",) and left.first("percent")
    return left if share or sign[0] != "is" else None


def _right(plain: str, start: int, end: int) -> Expression | None:
    near = min(end, start + _REACH)
    right = read_after(plain, start, near)
    return right if right and (near == end or right.lexemes[-1].end < near) else None


def _written(left: Expression) -> str | None:
    quantity = left.quantity
    money = left.first("currency") if not quantity.over.isdisjoint(MONEY) else ""
    percent = left.first("percent").replace("percent", " percent")
    number = format_number(abs(quantity.value))
    whole, _, part = number.partition(".")
    if "/" in number or len(whole + part) > DIGITS or len(part) > (_CENTS if money else _PLACES):
        return None
    if percent and not quantity.percent and whole == "0" and not money and "of" not in left.operators:
        return None  # "2 * 20%": 0.4, or 40%?
    if any("," in piece.text for piece in left.lexemes):
        whole = f"{int(whole):,}"
    if part and money:
        part = part.ljust(_CENTS, "0")
    sign = "-" * (quantity.value < 0)
    return sign + money + whole + "." * bool(part) + part + percent * quantity.percent


def _step(text: str, plain: str, start: int, sign: re.Match[str], end: int) -> Step | None:
    """The equation around a sign, of which nothing stands before `start` or behind `end`."""
    if sign[0] not in (*_EXACT, *_ROUNDING):
        return None
    near = max(start, sign.start() - _REACH)
    about = _ABOUT.match(plain, sign.end(), end)
    left = _left(plain, near, sign, whole=near == start)
    right = _right(plain, about.end() if about else sign.end(), end) if left else None
    if not left or not right:
        return None
    rounding = bool(about or sign[0] in _ROUNDING)
    cut = plain.startswith(("..", "\u2026"), right.lexemes[-1].end)  # "0.66..."
    values = [left.quantity.value]
    if left.quantity.percent != right.quantity.percent:
        values.append(values[0] / 100 if left.quantity.percent else values[0] * 100)
    agreeing = [value for value in values if _agrees(value, right, rounding, cut)]
    return Step(
        expression=text[left.lexemes[0].start : sign.start()].rstrip(_ENDING),
        claimed=format_number(right.quantity.value),
        computed=format_number((agreeing or values)[-1]),
        ok=bool(agreeing),
    )


def _agrees(value: Fraction, right: Expression, rounding: bool, cut: bool) -> bool:
    """Whether a right side is a value, or that rounded half up or half to even, or cut after its places."""
    claimed = right.quantity.value
    places = 0 if right.operators else len(right.first("number").partition(".")[2])
    if claimed == value or not (rounding or places) or claimed * value < 0:
        return claimed == value
    size = abs(value) * 10**places
    rounded = {round(size), floor(size + Fraction(1, 2)), floor(size) if cut else round(size)}
    return abs(claimed) * 10**places in rounded
