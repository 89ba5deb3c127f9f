"""Calculator for generated text: the results of pending sums, and checks of the equations it contains."""

import re
from collections.abc import Sequence
from fractions import Fraction
from math import floor

from . import Step
from .expression import DIGITS_MAX, Expression, parse_left_side, parse_mixed_number, parse_right_side
from .final_answer import format_number
from .lexer import blank_markup
from .notation import NOTATION
from .units import CURRENCIES

WINDOW = NOTATION.limits["window"]  # characters before and after a relation sign that are parsed
_EQUALITIES = NOTATION.lists["relations"]["equalities"]
_APPROXIMATIONS = NOTATION.lists["relations"]["approximations"]
_RELATION = NOTATION.patterns["relation"]
_ROUNDING_WORD = NOTATION.patterns["rounding_word"]
_ANNOTATION = NOTATION.patterns["annotation"]  # GSM8K's "3 * 4 = <<3*4=12>>12"
_MONEY_PLACES = NOTATION.limits["money_places"]
_LINE_MARKUP = " \t\n\\&"  # before a relation sign that begins a line


def pending_result(text: str) -> str | None:
    """Compute the result with which a text continues that ends in a sum and "=", or in "20% of 85 is".

    Returns:
        The characters to append, in the sum's notation, with its currency symbol and thousands separators.
        None if no result is pending, the result is not a decimal with few places, or the sum is ambiguous.
    """
    if not text.endswith(("=", "= ", "is", "is ")):
        return None
    cut = len(text) > WINDOW
    window = text[-WINDOW - 1 :] if cut else text  # one more character, for the patterns that look behind
    plain = blank_markup(window)
    signs = list(_RELATION.finditer(plain))
    if not signs or signs[-1][0] not in _EQUALITIES or len(plain) - signs[-1].end() > 1:
        return None
    sign, start = signs[-1], signs[-2].end() if signs[1:] else int(cut)
    left = _left_side(plain, start, sign, bounded=bool(signs[1:]) or not cut)
    result = _format_result(left) if left else None
    if result is None or sign.end() < len(plain):
        return result
    return f" {result}" if sign[0] == "is" or window[: sign.start()][-1:].isspace() else result


def check_steps(text: str) -> tuple[Step, ...]:
    """Check every equation of a text whose two sides can be parsed, in order."""
    return tuple(step for _, step in check_relations(text) if step)


def check_relations(text: str) -> list[tuple[int, Step | None]]:
    """Check what every relation sign of a text relates.

    Returns:
        For each sign its position and the equation, None if a side cannot be parsed.
    """
    plain = _ANNOTATION.sub(lambda match: " " * len(match[0]), blank_markup(text))
    signs = list(_RELATION.finditer(plain))
    starts = [0, *(sign.end() for sign in signs)]
    ends = [*(sign.start() for sign in signs[1:]), len(plain)]
    spans = zip(starts, signs, ends, strict=False)
    return [(sign.start(), _check_step(text, plain, start, sign, end)) for start, sign, end in spans]


def is_verified(steps: Sequence[Step], value: str | None) -> bool:
    """Return whether all steps hold and one results in the final answer, as format_number() writes it."""
    return all(step.ok for step in steps) and any(value in (step.claimed, step.computed) for step in steps)


def _left_side(plain: str, start: int, sign: re.Match[str], bounded: bool) -> Expression | None:
    """Parse the sum before "=", or the share ("20% of 85") before "is"."""
    end = start + len(plain[start : sign.start()].rstrip())  # the sign may begin a line
    left = parse_left_side(plain, start, end, bounded)
    if left is None or not left.operators:
        return None
    is_share = left.operators == ("of",) and left.first("percent")
    return left if is_share or sign[0] != "is" else None


def _format_result(left: Expression) -> str | None:
    quantity = left.quantity
    currency = left.first("currency") if not quantity.units.isdisjoint(CURRENCIES) else ""
    percent = left.first("percent").replace("percent", " percent")
    number = format_number(abs(quantity.value))
    whole, _, decimals = number.partition(".")
    places_max = _MONEY_PLACES if currency else NOTATION.limits["result_places"]
    if "/" in number or len(whole + decimals) > DIGITS_MAX or len(decimals) > places_max:
        return None
    if percent and not quantity.percent and whole == "0" and not currency and "of" not in left.operators:
        return None  # "2 * 20%": 0.4, or 40%?
    if any("," in lexeme.text for lexeme in left.lexemes):
        whole = f"{int(whole):,}"
    if decimals and currency:
        decimals = decimals.ljust(_MONEY_PLACES, "0")
    sign = "-" * (quantity.value < 0)
    return sign + currency + whole + "." * bool(decimals) + decimals + percent * quantity.percent


def _check_step(text: str, plain: str, start: int, sign: re.Match[str], end: int) -> Step | None:
    """Check the equation at a relation sign, whose sides are between `start` and `end`."""
    if sign[0] not in (*_EQUALITIES, *_APPROXIMATIONS):
        return None
    window_start = max(start, sign.start() - WINDOW)
    rounding_word = _ROUNDING_WORD.match(plain, sign.end(), end)
    left = _left_side(plain, window_start, sign, bounded=window_start == start)
    if left is None:
        return None
    result_start = rounding_word.end() if rounding_word else sign.end()
    window_end = min(end, result_start + WINDOW)
    right = parse_right_side(plain, result_start, window_end, bounded=window_end == end)
    if right is None or "of" in right.operators or not left.quantity.agrees_with(right.quantity):
        return None  # "3/3 - 2/3 = 1/3 of $150"
    rounds = bool(rounding_word or sign[0] in _APPROXIMATIONS)
    truncates = plain.startswith(("..", "\u2026"), right.lexemes[-1].end)  # "0.66..."
    value = as_written = left.quantity.value
    if left.quantity.percent != right.quantity.percent:
        value = value / 100 if left.quantity.percent else value * 100
    ok = _matches(value, right, rounds, truncates)
    if not ok and right.operators and value == parse_mixed_number(right.first("number")):
        return None  # a running total: "3 * 4 = 12 + 5"
    if not ok and value != as_written and _matches(as_written, right, rounds, truncates):
        return None  # "100 - 80 = 20%" is right only if the sign is overlooked
    return Step(
        expression=text[left.lexemes[0].start : sign.start()].rstrip(_LINE_MARKUP),
        claimed=format_number(right.quantity.value),
        computed=format_number(value),
        ok=ok,
    )


def _matches(value: Fraction, right: Expression, rounds: bool, truncates: bool) -> bool:
    """Return whether a right side is a value: exactly, rounded half up or half to even, or truncated."""
    claimed = right.quantity.value
    places = 0 if right.operators else len(right.first("number").partition(".")[2])
    exact = not (places and claimed) or 10**_MONEY_PLACES % value.denominator == 0
    if claimed == value or claimed * value < 0 or (exact and not rounds):
        return claimed == value
    scaled = abs(value) * 10**places
    rounded = {round(scaled), floor(scaled + Fraction(1, 2)), floor(scaled) if truncates else round(scaled)}
    return abs(claimed) * 10**places in rounded
