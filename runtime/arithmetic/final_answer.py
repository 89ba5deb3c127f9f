r"""Final answers: the exact number that a model's text gives as its result.

The text is first rewritten in plain notation: `\frac{3}{4}` becomes 3/4, a minus sign becomes a hyphen, and
the numbers of steps and lists go. Then the ways of stating an answer are tried, the most explicit first, each
from the end of the text.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_TOKEN = 1_000  # characters of the longest number read


_EXPONENT = 300  # the largest power of ten, up or down


_LIMIT = 10**400  # a numerator or denominator from here on is a model repeating itself, not an answer


_PLACES = 100  # decimal places up to which a finite decimal is written as one


_FLAGS = re.ASCII | re.IGNORECASE | re.MULTILINE


VULGAR = str.maketrans({"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4"})


# Carried out in this order. Every pattern of this file takes linear time; the tests measure it.
_PLAIN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, _FLAGS), plain)
    for pattern, plain in (
        ("[\u2212\u2010\u2011\u2013]", "-"),
        ("[\u00a0~]|\\\\[ ()\\[\\]]", " "),
        ("[\u2009\u202f]|\\\\[,!;:]", ""),
        (r"\{,\}", ","),
        (r"\\([$%£€#])", r"\1"),
        ("\u00d7|\\\\(?:times|cdot)(?![a-z])", "*"),
        (r"\\(?:text|math|left|right|display|q?quad)[a-z]*", ""),
        (r"\^\{([^{}]*)\}", r"^\1"),
        (r"(?<=\d)\s?(?=\\[dt]?frac)", " "),
        (r"\\[dt]?frac\s?(\d)\s?(\d)", r"\1/\2"),
        (r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}", r"\1/\2"),
        (r"\b(?:step|question|problem|equation|example)\s?#?\d+", ""),
        (r"^[ \t>#*-]*\d{1,2}[.)](?=[ \t]+\S)", ""),
        (r"\b\d+(?:st|nd|rd|th)\b", ""),
    )
)


DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"


_NUMBER = re.compile(
    rf"""(?P<sign>(?<![\w)\]}}%$])-)?  (?:[$€£]\s?){{0,2}}  (?P<inner>(?<=[$€£])-)?
    (?<![\w^])(?<!\d\.)
    (?:(?P<whole>\d++)(?:[ ]|[ ]and[ ])(?={DECIMAL}[ ]?/[ ]?\d))?
    (?P<number>{DECIMAL})
    (?:[ ]?/[ ]?[$€£]?(?P<under>{DECIMAL}) | (?:e|[ ]?[*x][ ]?10\^)(?P<exponent>[+-]?\d+))?""",
    _FLAGS | re.VERBOSE,
)


_UNIT = re.compile(
    r"\s?[%$€£°]?(?:[\s/-]{0,3}[a-z\u00b0\u00b2\u00b3\u00b5][^\d=+*<>\n]{0,60}(?:\^?[23])?)?[\s.!)}*`\"'$]*",
    _FLAGS,
)


# Each captures the text in which the answer stands.
_CUES = tuple(
    re.compile(pattern, _FLAGS)
    for pattern in (
        r"\\f?boxed\s?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*+\})*+\})*+)",
        r"####\s*(?=([^\w\n]{0,6}\d.{0,300}))",
        r"(?<!/)\banswers?\b(?:[^\n\d.:=]{0,60}?\bis\b|\W{0,5}[:=>])[\s*:#>_`]*(?=(.{1,300}))",
    )
)


_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")


def final_answer(text: str) -> Fraction | None:
    r"""Find the final answer that a model's text gives.

    In this order: the last `\boxed{…}`, the last `#### …`, the last "answer is …" or "answer: …"; then, in
    the last sentence that has a number, what is **bold**, what follows the last "=", and the last number.

    Returns:
        The answer, exact; "20%" counts as 20, as in GSM8K. None where the text has no number.
    """
    plain = _plain(text)
    return next((value for way in (_cued, _closing) for value in way(plain)), None)


def parse_number(text: str) -> Fraction | None:
    r"""Read one number as people write it: "1,234", "-$3.50", "75%", "1 1/2", "\frac{3}{4}", "2.5 km".

    Returns:
        The number, exact, without its unit; "75%" is 75. None where the text is not one number, or is one of
        more than a thousand characters.
    """
    plain = _plain(text).lstrip(" \t\n({*`\"'")
    found = _NUMBER.match(plain)
    return _value(found) if found and _UNIT.fullmatch(plain, found.end()) else None


def format_number(value: Fraction) -> str:
    """Write a number in the one way that equal numbers share: "42", "-3.5", "1/3" where no decimal ends."""
    under = value.denominator
    places = next((n for n in range(_PLACES + 1) if pow(10, n, under) == 0), None)
    if places is None:
        return f"{value.numerator}/{under}"
    digits = str(abs(value.numerator) * 10**places // under).zfill(places + 1)
    whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
    return "-" * (value < 0) + whole + "." * bool(part) + part


def _plain(text: str) -> str:
    text = text.translate(VULGAR)
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    return text


def _value(found: re.Match[str]) -> Fraction | None:
    whole, number, under, exponent = (
        (found[name] or default).replace(",", "")
        for name, default in (("whole", "0"), ("number", ""), ("under", "1"), ("exponent", "0"))
    )
    if len(found[0]) > _TOKEN or abs(int(exponent)) > _EXPONENT or not Fraction(under):
        return None
    value = (int(whole) + Fraction(number) / Fraction(under)) * Fraction(10) ** int(exponent)
    if max(abs(value.numerator), value.denominator) >= _LIMIT:
        return None
    return -value if found["sign"] or found["inner"] else value


def _numbers(text: str, last_first: bool = False) -> Iterator[Fraction]:
    found = _NUMBER.finditer(text)
    values = map(_value, reversed(list(found)) if last_first else found)
    return (value for value in values if value is not None)


def _stated(scope: str) -> Iterator[Fraction]:
    """The first number of a scope, or what the sentence that it opens says it comes to: "5 + 3 = 8"."""
    if first := _NUMBER.search(scope):
        sentence = _SENTENCE_END.split(scope[first.start() :], maxsplit=1)[0]
        yield from _numbers(sentence.rpartition("=")[2])
        yield from _numbers(scope)


def _cued(text: str) -> Iterator[Fraction]:
    for cue in _CUES:
        for found in reversed(list(cue.finditer(text))):
            yield from _stated(found[1])


def _closing(text: str) -> Iterator[Fraction]:
    for sentence in reversed(_SENTENCE_END.split(text)):
        bold = (parse_number(inside.rpartition("=")[2]) for inside in reversed(_BOLD.findall(sentence)))
        yield from (value for value in bold if value is not None)
        _, equals, result = sentence.rpartition("=")
        if equals:
            yield from _numbers(result)
        yield from _numbers(sentence, last_first=True)
