r"""Numbers as people write them, and the final answer that a model's text states in the most explicit way.

Numbers: "1,234", "-$3.50", "75%", "1 1/2", "\frac{3}{4}", "2.5 km", "6.02e23". Texts are normalized first:
`\frac{3}{4}` becomes 3/4, and a minus sign a hyphen. A number counts only if it stands for itself: none is
read in "5!", "5k", "√16", "7 - 2", "2h 30m", "more than 5" and "not 5".
"""

import re
import unicodedata
from collections.abc import Iterator, Set
from fractions import Fraction
from itertools import chain

from .lexer import NORMALIZATIONS, PATTERNS

_CHARACTERS_MAX, _EXPONENT_MAX, _PLACES_MAX = 1_000, 300, 100
_MAGNITUDE_LIMIT = 10**400  # beyond it, a model repeats itself
_NEAR = 40  # characters beside a number that tell what it is
_PARTS = {"whole": "0", "number": "", "raised": "1", "denominator": "1", "exponent": "0"}  # if absent
_ECHO_WORDS = 3  # of which a sentence that only repeats the question has more


def final_answer(text: str, question: str = "") -> Fraction | None:
    r"""Find the final answer that a model's text states to a question.

    The order is: the last `\boxed{…}`; the last `#### …`; the last "answer is …" or "answer: …"; then, if the
    question asks for a number, in the last sentence that has one, **bold** text, what follows the last "=",
    and the quantity that the sentence gives; last, the number of an item: "Answer:\n42. I hope this helps!".

    Returns:
        The exact answer; "20%" counts as 20, as in GSM8K. None if the text states none, or several, or what
        it states is more than a number: `\boxed{3\sqrt{2}}`, "more than 5".
    """
    normalized = normalize(text)
    stated = _after_cues(normalized)
    if not question or _asks_number(question):
        stated = chain(stated, _in_last_sentence(normalized, normalize(question)))
    of_item = _after_cues(normalize(PATTERNS["list_number"].sub(r"\1", text)))
    return next(chain(stated, of_item), None)


def _asks_number(question: str) -> bool:
    asks, asks_none, digit = (PATTERNS[name].search(question) for name in ("asks", "asks_no_number", "digit"))
    return asks is not None or (digit is not None and asks_none is None)


def _after_cues(text: str) -> Iterator[Fraction | None]:
    """Yield what the cues state, from the most explicit; None for what is more than a number, or several."""
    if boxes := [content for content in PATTERNS["box"].findall(text) if content.strip()]:
        yield None if _has_solutions(boxes[-1]) else parse_number(boxes[-1].rpartition("=")[2])
    for cue in ("hashes", "answer_is"):
        for match in reversed(list(PATTERNS[cue].finditer(text))):
            sentence = PATTERNS["sentence_end"].split(match[1], maxsplit=1)[0]
            if _has_solutions(sentence):
                yield None
            yield from _stated(PATTERNS["reason"].split(sentence, maxsplit=1)[0].rpartition("=")[2])


def _has_solutions(*sentences: str) -> bool:
    """Whether sentences give an unknown several values: "x = 2 or x = 3"."""
    solutions = {pair for sentence in sentences for pair in PATTERNS["solution"].findall(sentence)}
    return len({name for name, _ in solutions}) < len(solutions)


def _stated(text: str, *, solved: bool = True) -> Iterator[Fraction | None]:
    """Yield the number with which a solved text begins, or else its last one if that follows "is"."""
    matches = find_numbers(text)
    if not matches:
        return
    first, last = matches[0], matches[-1]
    if solved and PATTERNS["no_words"].fullmatch(first.string, 0, first.start()):
        number = plain_value(first)
        if number is not None:
            yield number
    yield plain_value(last) if PATTERNS["link"].search(before(last)) else None


def _in_last_sentence(text: str, question: str) -> Iterator[Fraction | None]:
    """Yield what the last sentence with a number states; None or nothing if that is nothing, or several."""
    sentences = [one for one in PATTERNS["sentence_end"].split(text) if any(map(str.isalnum, one))]
    with_number = [sentence for sentence in sentences if find_numbers(sentence)]
    if not with_number or _has_solutions(*with_number[-2:]):
        return
    last = with_number[-1].strip()
    bold = (parse_number(content.rpartition("=")[2]) for content in reversed(PATTERNS["bold"].findall(last)))
    yield from (number for number in bold if number is not None)
    left, equals, result = last.rpartition("=")
    if equals:
        is_unknown = PATTERNS["unknown"].search(f"{left.rpartition('=')[2]}={result}")  # "x - 4 = 9"
        yield from _stated(result, solved=not is_unknown and not PATTERNS["example"].search(result))
    is_echo = last in question and last.count(" ") >= _ECHO_WORDS
    if is_echo or last.endswith(":"):
        return
    given = {value(match) for match in find_numbers(question.replace("/", " "))}
    near = with_number[-1] in sentences[-2:]
    statements = (PATTERNS["aside"].sub("", PATTERNS["reason"].split(last, maxsplit=1)[0]), last)
    quantities = (_quantity(statement, given, near=near) for statement in statements)
    yield next((quantity for quantity in quantities if quantity is not None), None)


def _quantity(sentence: str, given: Set[Fraction | None], *, near: bool) -> Fraction | None:
    """The quantity that a sentence gives: its only new number, its only number, or the last after "is".

    Where the sentence is not `near` the end, only a new number after "is".
    """
    matches = find_numbers(sentence)
    values = {match: plain_value(match) for match in matches if " / " not in match[0]}
    new = {*values.values()} - given - {None}
    if len(new) == 1 and near:
        return new.pop()
    last = matches[-1] if matches else None
    if last is None or values.get(last) is None:
        return None
    if new:
        is_stated = PATTERNS["link"].search(before(last)) is not None
    else:
        is_only = len(matches) == 1 and "%" not in sentence
        is_stated = near and (is_only or PATTERNS["being"].search(before(last)) is not None)
    return values[last] if is_stated else None


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
