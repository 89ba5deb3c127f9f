r"""Numbers as people write them: "1,234", "-$3.50", "75%", "1 1/2", "\frac{3}{4}", "2.5 km", "6.02e23".

Texts are normalized first: `\frac{3}{4}` becomes 3/4, and a minus sign a hyphen. A number counts only if it
stands for itself: none is read in "5!", "5k", "√16", "7 - 2", "2h 30m", "more than 5" and "not 5".
"""

import re
import unicodedata
from fractions import Fraction

from .lexer import NORMALIZATIONS, PATTERNS

_CHARACTERS_MAX, _EXPONENT_MAX, _PLACES_MAX = 1_000, 300, 100
_MAGNITUDE_LIMIT = 10**400  # beyond it, a model repeats itself
_NEAR = 40  # characters beside a number that tell what it is
_PARTS = {"whole": "0", "number": "", "raised": "1", "denominator": "1", "exponent": "0"}  # if absent


def parse_number(text: str) -> Fraction | None:
    """Parse a text that is one number, with or without a unit; "75%" is 75, and "2 million" is None."""
    for number in find_numbers(PATTERNS["braces"].sub("", normalize(text)).lstrip(" \t\n(*`\"'")):
        is_whole = number.start() == 0 and PATTERNS["unit"].fullmatch(number.string, number.end())
        return plain_value(number) if is_whole else None
    return None


def format_number(value: Fraction) -> str:
    """Write a number in a canonical form: "42", "-3.5", or "1/3" if the decimal does not end."""
    places = 0
    while places <= _PLACES_MAX and pow(10, places, value.denominator):
        places += 1
    if places > _PLACES_MAX:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    return "-" * (value < 0) + whole + "." * bool(decimals) + decimals


def spell_out(text: str) -> str:
    """Write "2½" as "2 1/2", "-½" as "-1/2", and "10²" as "10^2"."""
    text = PATTERNS["power_start"].sub("^", PATTERNS["fraction_start"].sub(" ", text))
    spelled = PATTERNS["compatible"].sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return spelled.replace("\u2044", "/")  # a fraction's slash


def normalize(text: str) -> str:
    """Write numbers in ASCII, without LaTeX's commands, and leave out those of steps and items of lists."""
    text = spell_out(text)
    for pattern, replacement in NORMALIZATIONS:
        text = pattern.sub(replacement, text)
    return text


def find_numbers(text: str) -> list[re.Match[str]]:
    """The numbers of a text; if groups of digits begin it, they are one number: "12 000 km"."""
    groups = PATTERNS["groups"].match(text)
    joined = groups[0].replace(" ", "") + text[groups.end() :] if groups else text
    return [*PATTERNS["number"].finditer(joined)]


def before(match: re.Match[str]) -> str:
    """The text just before a match."""
    return match.string[max(match.start() - _NEAR, 0) : match.start()]


def after(match: re.Match[str]) -> str:
    """The text just after a match, without braces and bold type."""
    return PATTERNS["braces"].sub("", match.string[match.end() : match.end() + _NEAR])


def plain_value(match: re.Match[str]) -> Fraction | None:
    """The value of a number; None if it is part of something else, or too long."""
    if PATTERNS["changed_before"].search(before(match)) or PATTERNS["changed_after"].match(after(match)):
        return None
    return value(match)


def value(match: re.Match[str]) -> Fraction | None:
    """The value of a number, whatever stands beside it; None if it is too long."""
    whole, number, raised, denominator, exponent = (
        (match[name] or default).replace(",", "") for name, default in _PARTS.items()
    )
    if len(match[0]) > _CHARACTERS_MAX or abs(int(exponent)) > _EXPONENT_MAX:
        return None
    if len(number) * abs(int(raised)) > _CHARACTERS_MAX:
        return None
    if not Fraction(denominator) or (int(raised) < 0 and not Fraction(number)):
        return None
    magnitude = int(whole) + Fraction(number) ** int(raised) / Fraction(denominator)
    magnitude *= Fraction(10) ** int(exponent)
    if max(abs(magnitude.numerator), magnitude.denominator) >= _MAGNITUDE_LIMIT:
        return None
    return -magnitude if match["sign"] or match["inner_sign"] else magnitude
