r"""Parser for final answers: the exact number that a model's text states as its result.

The text is first normalized: `\frac{3}{4}` becomes 3/4, a minus sign becomes a hyphen, and the numbers of
steps and list items are removed. Then the ways to state an answer are tried, the most explicit first and each
from the end of the text.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

from .notation import NOTATION

_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["answer_magnitude_digits"]  # beyond it, a model repeats itself
_CHARACTERS_MAX, _EXPONENT_MAX = NOTATION.limits["answer_characters"], NOTATION.limits["answer_exponent"]
_PARTS = {"whole": "0", "number": "", "raised": "1", "denominator": "1", "exponent": "0"}  # if absent

VULGAR_FRACTIONS = str.maketrans(dict(NOTATION.texts["vulgar_fractions"]))
_SIGNED_FRACTION, _SYMBOLIC = NOTATION.patterns["signed_fraction"], NOTATION.patterns["symbolic"]
_NUMBER, _UNIT = NOTATION.patterns["number"], NOTATION.patterns["unit"]
_LIST_NUMBER, _SPACED = NOTATION.patterns["list_number"], NOTATION.patterns["spaced"]
_REASON, _BOLD = NOTATION.patterns["reason"], NOTATION.patterns["bold"]
_SENTENCE_END = NOTATION.patterns["sentence_end"]


def final_answer(text: str) -> Fraction | None:
    r"""Find the final answer in a model's text.

    The order is: the last `\boxed{…}`; the last `#### …`; the last "answer is …" or "answer: …"; then, in the
    last sentence that has a number, **bold** text, what follows the last "=", and the last number. If all
    numbers are those of list items, an answer may be one: "Answer:\n42. I hope this helps!".

    Returns:
        The exact answer; "20%" counts as 20, as in GSM8K. None if the text has no number, or its box has
        more than that: `\boxed{3\sqrt{2}}`.
    """
    normalized = _normalize(text)
    if (value := next(chain(_after_cues(normalized), _in_last_sentence(normalized)), None)) is not None:
        return value
    return next(_after_cues(_normalize(_LIST_NUMBER.sub(r"\g<item>", text))), None)


def parse_number(text: str) -> Fraction | None:
    r"""Parse one number as people write it: "1,234", "-$3.50", "75%", "1 1/2", "\frac{3}{4}", "2.5 km".

    Returns:
        The exact number without its unit; "75%" is 75. None if the text is not one number, or the number has
        more than a thousand characters.
    """
    normalized = _join_groups(_normalize(text).lstrip(" \t\n({*`\"'"))
    match = _NUMBER.match(normalized)
    return _value(match) if match and _UNIT.fullmatch(normalized, match.end()) else None


def format_number(value: Fraction) -> str:
    """Write a number in a canonical form: "42", "-3.5", or "1/3" if the decimal does not end."""
    places, places_max = 0, NOTATION.limits["answer_places"]
    while places <= places_max and pow(10, places, value.denominator):
        places += 1
    if places > places_max:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
    return "-" * (value < 0) + whole + "." * bool(decimals) + decimals


def _normalize(text: str) -> str:
    text = _SIGNED_FRACTION.sub(lambda match: match[0].translate(VULGAR_FRACTIONS).lstrip(), text)
    text = text.translate(VULGAR_FRACTIONS)
    for pattern, replacement in NOTATION.normalizations:
        text = pattern.sub(replacement, text)
    return text


def _join_groups(text: str) -> str:
    """Join the groups of digits of a number that is the whole text: "12 000" becomes "12000"."""
    return _SPACED.sub(lambda match: match[0].replace(" ", ""), text)


def _value(match: re.Match[str]) -> Fraction | None:
    whole, number, raised, denominator, exponent = (
        (match[name] or default).replace(",", "") for name, default in _PARTS.items()
    )
    if match["unread"] or len(match[0]) > _CHARACTERS_MAX or abs(int(exponent)) > _EXPONENT_MAX:
        return None
    if len(number) * abs(int(raised)) > _CHARACTERS_MAX:
        return None  # the power would be as long
    if not Fraction(denominator) or (int(raised) < 0 and not Fraction(number)):
        return None
    value = int(whole) + Fraction(number) ** int(raised) / Fraction(denominator)
    value *= Fraction(10) ** int(exponent)
    if max(abs(value.numerator), value.denominator) >= _MAGNITUDE_LIMIT:
        return None
    return -value if match["sign"] or match["inner_sign"] else value


def _numbers(text: str, last_first: bool = False) -> Iterator[Fraction]:
    matches = _NUMBER.finditer(text)
    values = map(_value, reversed(list(matches)) if last_first else matches)
    return (value for value in values if value is not None)


def _stated_numbers(text: str) -> Iterator[Fraction]:
    """Yield what the sentence at the first number equals ("5 + 3 = 8"), but for reasons, then all numbers."""
    text = _join_groups(text)
    if first := _NUMBER.search(text):
        sentence = _SENTENCE_END.split(text[first.start() :], maxsplit=1)[0]
        statement = _REASON.split(sentence, maxsplit=1)[0]  # "5 because x = 2"
        yield from _numbers(statement.rpartition("=")[2])
        yield from _numbers(text)


def _after_cues(text: str) -> Iterator[Fraction | None]:
    """Yield what the cues state, from the most explicit; None for a box with symbols."""
    for cue in NOTATION.cues:
        for match in reversed(list(cue.finditer(text))):
            if cue is NOTATION.cues[0] and _SYMBOLIC.search(match[1].rpartition("=")[2]):
                yield None
            yield from _stated_numbers(match[1])


def _in_last_sentence(text: str) -> Iterator[Fraction]:
    for sentence in reversed(_SENTENCE_END.split(text)):
        bold = (parse_number(content.rpartition("=")[2]) for content in reversed(_BOLD.findall(sentence)))
        yield from (value for value in bold if value is not None)
        _, equals, result = sentence.rpartition("=")
        if equals:
            yield from _numbers(result)
        yield from _numbers(sentence, last_first=True)
