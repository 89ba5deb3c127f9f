r"""Parser for final answers: the exact number that a model's text states as its result.

The text is first normalized: `\frac{3}{4}` becomes 3/4, a minus sign becomes a hyphen, and the numbers of
steps and list items are removed. Then the ways to state an answer are tried, the most explicit first and each
from the end of the text.
"""

import re
from collections.abc import Iterator, Sequence, Set
from fractions import Fraction
from itertools import chain, islice, pairwise

from .notation import NOTATION

_MAGNITUDE_LIMIT = 10 ** NOTATION.limits["answer_magnitude_digits"]  # beyond it, a model repeats itself
_CHARACTERS_MAX, _EXPONENT_MAX = NOTATION.limits["answer_characters"], NOTATION.limits["answer_exponent"]
_ECHO_WORDS = 3  # of which a sentence that only repeats the question has more
_NEAR = 100  # characters beside a number that tell what it is
_PARTS = {"whole": "0", "number": "", "raised": "1", "denominator": "1", "exponent": "0"}  # if absent

VULGAR_FRACTIONS = str.maketrans(dict(NOTATION.texts["vulgar_fractions"]))
_SIGNED_FRACTION, _SYMBOLIC = NOTATION.patterns["signed_fraction"], NOTATION.patterns["symbolic"]
_NUMBER, _UNIT = NOTATION.patterns["number"], NOTATION.patterns["unit"]
_LIST_NUMBER, _SPACED = NOTATION.patterns["list_number"], NOTATION.patterns["spaced"]
_REASON, _BOLD = NOTATION.patterns["reason"], NOTATION.patterns["bold"]
_ASKS, _ASKS_NO_NUMBER, _DIGIT = (NOTATION.patterns[name] for name in ("asks", "asks_no_number", "digit"))
_ORDINAL, _LINK, _SOLUTION = (NOTATION.patterns[name] for name in ("ordinal", "link", "solution"))
_BEING, _OPERAND, _LISTED = (NOTATION.patterns[name] for name in ("being", "operand", "listed"))
_UNKNOWN, _EXAMPLE, _ASIDE = (NOTATION.patterns[name] for name in ("unknown", "example", "aside"))
_SENTENCE_END, _GOES_ON = NOTATION.patterns["sentence_end"], NOTATION.patterns["goes_on"]


def final_answer(text: str, question: str = "") -> Fraction | None:
    r"""Find the final answer that a model's text states.

    The order is: the last `\boxed{…}`; the last `#### …`; the last "answer is …" or "answer: …"; then, in the
    last sentence that has a number, **bold** text, what follows the last "=", and the quantity that the
    sentence gives. If all numbers are those of list items, an answer may be one: "Answer:\n42. I hope this
    helps!".

    Args:
        text: the text.
        question: what was asked; a sentence gives a quantity only if it asked for one.

    Returns:
        The exact answer; "20%" counts as 20, as in GSM8K. None if the text states none, or several, or its
        box has more than a number: `\boxed{3\sqrt{2}}`.
    """
    normalized = _normalize(text)
    stated = _after_cues(normalized)
    if not question or _asks_number(question):
        stated = chain(stated, _in_last_sentence(normalized, _normalize(question)))
    if (value := next(stated, None)) is not None:
        return value
    return next(_after_cues(_normalize(_LIST_NUMBER.sub(r"\g<item>", text))), None)


def _asks_number(question: str) -> bool:
    if _ASKS.search(question):
        return True
    return _DIGIT.search(question) is not None and not _ASKS_NO_NUMBER.search(question)


def parse_number(text: str) -> Fraction | None:
    r"""Parse one number as people write it: "1,234", "-$3.50", "75%", "1 1/2", "\frac{3}{4}", "2.5 km".

    Returns:
        The exact number without its unit; "75%" is 75. None if the text is not one number, or the number has
        more than a thousand characters, or goes on in words: "2 million".
    """
    normalized = _join_groups(_normalize(text).lstrip(" \t\n({*`\"'"))
    match = _NUMBER.match(normalized)
    if not match or _GOES_ON.search(_behind(normalized, match)):
        return None
    return _value(match) if _UNIT.fullmatch(normalized, match.end()) else None


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
    """Join the groups of digits of a number with which a text begins: "12 000 km" becomes "12000 km"."""
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


def _numbers(text: str) -> Iterator[Fraction]:
    return (value for value in map(_value, _NUMBER.finditer(text)) if value is not None)


def _whole_numbers(text: str) -> Iterator[Fraction | None]:
    """Yield the numbers; None for several ("4 or -4"), and for one that goes on: "2 million"."""
    text = _join_groups(text)
    if _is_list(text):
        yield None
    for match in _NUMBER.finditer(text):
        if (value := _value(match)) is not None:
            yield None if _GOES_ON.search(_behind(text, match)) else value


def _stated_numbers(text: str) -> Iterator[Fraction | None]:
    """Yield what the first sentence equals ("5 + 3 = 8"), but for reasons, then all its numbers."""
    sentence = _SENTENCE_END.split(_join_groups(text), maxsplit=1)[0]
    if _has_solutions([sentence]):
        yield None
    statement = _REASON.split(sentence, maxsplit=1)[0]  # "5 because x = 2"
    yield from _whole_numbers(statement.rpartition("=")[2])
    yield from _whole_numbers(sentence)


def _after_cues(text: str) -> Iterator[Fraction | None]:
    """Yield what the cues state, from the most explicit; None for a box with symbols, and for several."""
    for cue in NOTATION.cues:
        for match in reversed(list(cue.finditer(text))):
            is_symbolic = cue is NOTATION.cues[0] and _SYMBOLIC.search(match[1].rpartition("=")[2])
            if is_symbolic or _is_list(match[1]):
                yield None
            yield from _stated_numbers(match[1])


def _in_last_sentence(text: str, question: str) -> Iterator[Fraction | None]:
    """Yield what the last sentence with a number states; None or nothing if that is nothing, or several."""
    sentences = [one for one in _SENTENCE_END.split(text) if any(map(str.isalnum, one))]
    with_number = [one for one in sentences if _NUMBER.search(one)]
    if not with_number or _has_solutions(with_number[-2:]):
        return
    last = with_number[-1]
    bold = (parse_number(content.rpartition("=")[2]) for content in reversed(_BOLD.findall(last)))
    yield from (value for value in bold if value is not None)
    left, equals, result = last.rpartition("=")
    if equals:
        found = [*_NUMBER.finditer(result)]
        if len(found) > 1 and _LINK.search(_before(result, found[-1])):
            yield _value(found[-1])
        is_unknown = _UNKNOWN.search(f"{left.rpartition('=')[2]}={result}")  # "x - 4 = 9"
        if is_unknown or _SYMBOLIC.search(result) or _EXAMPLE.search(result):
            yield None
        yield from _whole_numbers(result)
    echo = (stripped := last.strip()).count(" ") >= _ECHO_WORDS and stripped in question
    if echo or last.rstrip().endswith(":"):
        return
    given = {*_numbers(question.replace("/", " "))}
    near = last in sentences[-2:]
    parts = (_ASIDE.sub("", _REASON.split(last, maxsplit=1)[0]), last)
    yield next((one for part in parts if (one := _quantity(part, given, near=near)) is not None), None)


def _has_solutions(sentences: Sequence[str]) -> bool:
    """Whether sentences give an unknown several values: "x = 2 or x = 3"."""
    solutions = {
        (found[1], next(_numbers(_behind(one, found)), None))
        for one in sentences
        for found in _SOLUTION.finditer(one)
    }
    return len({name for name, _ in solutions}) < len(solutions)


def _before(text: str, match: re.Match[str]) -> str:
    return text[max(match.start() - _NEAR, 0) : match.start()]


def _behind(text: str, match: re.Match[str]) -> str:
    return text[match.end() : match.end() + _NEAR]


def _is_list(text: str) -> bool:
    """Whether a text begins with several numbers: "4 or -4"."""
    first, second = [*islice(_NUMBER.finditer(text), 2), None, None][:2]
    return bool(first and second and _LISTED.search(text[first.end() : second.start()]))


def _quantity(sentence: str, given: Set[Fraction], *, near: bool) -> Fraction | None:
    """The quantity that a sentence gives: its only new number, its only number, or the last after "is".

    Where the sentence is not `near` the end, only a new number after "is".
    """
    matches = [*_NUMBER.finditer(sentence)]
    listed = {
        one for a, b in pairwise(matches) if _LISTED.search(sentence[a.end() : b.start()]) for one in (a, b)
    }
    found = [
        (match, value)
        for match in matches
        if (value := _value(match)) is not None
        and match not in listed
        and " / " not in match[0]
        and not _ORDINAL.search(_before(sentence, match))
        and not _OPERAND.search(after := _behind(sentence, match))
        and not (
            value in given and after.lstrip().startswith("%") and not _BEING.search(_before(sentence, match))
        )
    ]
    new = {value for _, value in found} - given
    if len(new) == 1 and near:
        return next(iter(new))
    if not found or found[-1][0] is not matches[-1]:
        return None
    last, value = found[-1]
    before = _before(sentence, last)
    if near and not new and (_BEING.search(before) or all(other == value for _, other in found)):
        return value
    return value if new and _LINK.search(before) else None
