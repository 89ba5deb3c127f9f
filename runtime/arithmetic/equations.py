"""Equations in prose, as docs/engine.md defines them: which are right, and how an open one goes on."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from . import Step
from .expression import PERCENT, Side, parse_side, stem
from .final_answer import format_number, spell_out
from .lexer import CURRENCIES, NUMBER_WORDS, PATTERNS, VALUES, WORDS, Lexeme, lex

_SENTENCE_CHARS_MAX = 1_000  # longer ones are not read
_DIGITS_MAX = 18  # of a pending result
_MONEY_PLACES, _RESULT_PLACES = 2, 6
_THINGS = {*map(stem, WORDS["things"])}
_UNITS = _THINGS.union(map(stem, WORDS["measures"] | WORDS["symbols"]), CURRENCIES, PERCENT)
_STARTS = "0$([/+"  # letters of what an expression begins with


class Reading(NamedTuple):
    """What was read in a text."""

    steps: tuple[Step, ...]  # its equations, in order
    unread: tuple[str, ...]  # sentences with a relation sign that belongs to none of them

    def verifies(self, value: str | None) -> bool:
        """Return whether all equations were read and hold, and one results in a value."""
        results = {result for step in self.steps for result in (step.claimed, step.computed)}
        return not self.unread and all(step.ok for step in self.steps) and value in results


def read_equations(text: str, question: str = "") -> Reading:
    """Read the equations of a text; `question` is what was asked, with all that was said before."""
    reader = _Reader(text, question)
    reader.read(reader.last)
    return Reading(tuple(reader.steps), tuple(reader.unread))


class _Reader:
    """Reads the equations of a text sentence by sentence, but for those of the last, which may be open."""

    def __init__(self, text: str, question: str = "") -> None:
        lexemes = lex(question)
        letters = _letters(lexemes)
        self._counted = _counted(lexemes, letters)
        self._other_base = "b" in letters  # or times of a clock
        self._before = ""  # letters of the line before, if it may go on
        self._offset, self.steps, self.unread = 0, list[Step](), list[str]()
        ends = (boundary.end() for boundary in PATTERNS["boundary"].finditer(text))
        *ended, self.last = [text[start:end] for start, end in pairwise([0, *ends, len(text)])]
        for sentence in ended:
            self.read(sentence)

    def sentence(self, text: str) -> "Sentence":
        """The sentence of a text that follows the ones before."""
        lexemes = lex(text) if len(text) <= _SENTENCE_CHARS_MAX else []
        self._other_base |= "b" in _letters(lexemes)
        lexemes = [] if self._other_base else lexemes
        return Sentence(text, self._offset, self._before, lexemes, _letters(lexemes), self._counted)

    def read(self, text: str) -> None:
        """Read the next sentence."""
        sentence = self.sentence(text)
        steps, unread, last = sentence.read()
        if sentence.lexemes:
            is_ended = last == len(sentence.lexemes) or _is_ended(sentence.letters, text)
            self._before = "" if is_ended else sentence.letters
        self._offset += len(text)
        if unread if sentence.lexemes else "=" in text:  # not decimal, or too long
            self.unread.append(text.strip())
        self.steps += steps


class Sentence(NamedTuple):
    """A sentence, or a line."""

    text: str
    offset: int  # of its first character in the whole text
    before: str  # letters of the line before, if that is open
    lexemes: Sequence[Lexeme]  # none if it is too long, or its numbers may not be decimal
    letters: str  # one for each lexeme, see grammar.toml
    counted: frozenset[str]  # stems of what is counted in the question

    def read(self) -> tuple[list[Step], int, int]:
        """Return the equations, how many relation signs belong to none, and the index after the last."""
        has_number = re.search("[0nh]", self.letters)
        unread = sum(map(self.letters.count, "=<")) if has_number else 0
        steps, index, last = list[Step](), 0, 0
        while unread and index < len(self.lexemes):
            if self.begins(index) and (found := self._chain(index)):
                step, signs, index = found
                steps += [step] if step else []
                unread, last = unread - signs, index
            else:
                index += 1
        return steps, unread, last

    def begins(self, index: int) -> bool:
        """Return whether an expression may begin at an index: nothing before it belongs to it."""
        return self.letters[index] in _STARTS and PATTERNS["begins"].search(self._context(index)) is not None

    def _context(self, index: int) -> str:
        return f"{self.before}|{self.letters[:index]}"

    def _chain(self, start: int) -> tuple[Step | None, int, int] | None:
        """The equation at an index, None for a definition ("x = 12"); its signs, and the index after it."""
        sides, signs, index = list[Side](), list[Lexeme](), start
        while parsed := parse_side(self.lexemes, index):
            side, index = parsed
            sides.append(side)
            if self.letters[index : index + 1] != "=":
                break
            signs.append(self.lexemes[index])
            index += 1
        else:
            return None
        end, names = self._end(index, start), self._names(start)
        if end is None or not (sides[0].operators if signs else names):
            return None
        if not signs:
            return None, names, end
        verdicts = [self._verdict(*pair) for pair in zip(sides, signs, sides[1:], strict=False)]
        if None in verdicts or (False in verdicts and PATTERNS["vague"].search(self._context(start))):
            return None
        claimed = sides[verdicts.index(False) + 1] if False in verdicts else sides[-1]
        return self._step(sides[0], claimed, signs[0], all(verdicts)), names + len(signs), end

    def _step(self, left: Side, claimed: Side, sign: Lexeme, ok: bool) -> Step:
        start, scale = left.lexemes[0].start, 100 if claimed.quantity.unit == PERCENT else 1
        return Step(
            self.text[start : sign.start].rstrip(" \t\n\\&"),
            format_number(claimed.quantity.value * scale),
            format_number(left.quantity.value * scale),
            ok,
            start + self.offset,
            claimed.lexemes[0].start + self.offset,
            max(one.end for one in claimed.lexemes if one.kind != "word") + self.offset,
        )

    def _names(self, index: int) -> int:
        """How many signs before an index only name it: 2 in "total = price * count = 3 * 4"; else 0."""
        names = PATTERNS["names"].search(self._context(index))
        return names[0].count("=") if names else 0

    def _end(self, index: int, start: int) -> int | None:
        is_aside = self.letters[start - 1 : start] in ("(", "[")
        ends = PATTERNS["ends_aside" if is_aside else "ends"].match(self.letters, index)
        return ends.end("suffix") if ends else None

    def _verdict(self, left: Side, sign: Lexeme, right: Side) -> bool | None:
        value, claimed = left.quantity.value, right.quantity.value
        unit, noun = left.quantity.unit, right.quantity.unit
        is_known = noun in _UNITS or noun in self.counted
        if not _agree(left, noun, is_known=is_known):
            return None
        number = next(one for one in right.lexemes if one.kind == "number")
        places = len(number.text.partition(".")[2]) + 2 * (noun == PERCENT)
        off = abs(value - claimed) * 10**places  # in units of the last place
        is_result = right.operators == ""
        if value == claimed or (sign.text != "=" and is_result and 2 * off <= 1):
            return True
        is_range = value < 0 < claimed or (value + 1 == claimed and unit != noun)  # "10 - 20 = 11 pages"
        doubtful = (
            sign.text != "="
            or not (noun in _THINGS or (unit == noun and (noun == "" or is_known)))
            or left.doubtful
            or right.doubtful
            or (off < 1 if is_result else number.value == value)  # rounded; "3 * 4 = 12 + 5"
            or claimed in (value * 100, value / 100)  # in percent?
            or (is_range and "-" in left.operators)
        )
        return None if doubtful else False


def _agree(left: Side, noun: str, *, is_known: bool) -> bool:
    """Whether a result may have a unit: what its terms count, or none but that of a currency sign."""
    # No noun may be left out: "2 dozen + 3 dozen = 5".
    # "7 m" may be 7 million, "8-4 = 4 hours" a span of time.
    unit = left.quantity.unit
    if noun in ("", unit):
        return unit == noun or unit in CURRENCIES
    is_letter = len(noun) == 1 and noun.isalpha()
    is_span = PATTERNS["hours"].fullmatch(left.text) and noun not in CURRENCIES | _THINGS
    return unit == "" and is_known and not is_letter and not is_span


def _letters(lexemes: Sequence[Lexeme]) -> str:
    return "".join(lexeme.letter for lexeme in lexemes)


def _is_ended(letters: str, text: str) -> bool:
    is_block = text[len(text.rstrip()) :].count("\n") > 1  # a blank line follows
    return any(PATTERNS[name].search(letters) for name in ("ended", "ended_block")[: 1 + is_block])


def _counted(lexemes: Sequence[Lexeme], letters: str) -> frozenset[str]:
    near = re.finditer("(?<=[0nh])[a-z]{1,2}|(?<=[0nh][a-z])[a-z]", letters)
    words = (one.text.lower() for match in near for one in lexemes[match.start() : match.end()])
    return frozenset(stem(word) for word in words if word not in NUMBER_WORDS)


def is_grounded(steps: Iterable[Step], question: str) -> bool:
    """Return whether every number of every equation is in the question, or the result of an equation before.

    The question is what was asked, with all that was said before; a "dozen" in it is also 12.
    """
    known = _known(question)
    for step in steps:
        if not known.issuperset(_numbers(step.expression)):
            return False
        known |= {Fraction(step.claimed), Fraction(step.computed)}
    return True


def has_number(text: str) -> bool:
    """Whether a text has a number, in digits or in words."""
    return len(_known(text)) > 0


def _known(text: str) -> set[Fraction]:
    """The numbers of a text, and its fractions: "1 1/2"."""
    fractions = {
        int(whole or 0) + Fraction(int(numerator), int(denominator))
        for whole, numerator, denominator in PATTERNS["fraction"].findall(spell_out(text))
        if int(denominator)
    }
    return fractions.union(_numbers(text))


def _numbers(text: str) -> Iterator[Fraction]:
    last = Fraction(0)
    for lexeme in lex(text):
        word = lexeme.text.lower()
        if lexeme.kind == "percent" or word == "percent":
            yield from (last / 100, Fraction(100))
        if lexeme.kind == "number":
            yield (last := lexeme.value)
        elif lexeme.kind == "word":
            values = [n for part in word.split("-") for n, words in VALUES.items() if part in words]
            yield from (*values, sum(values, Fraction())) if values[1:] else values  # "twenty-five"


def pending_result(text: str) -> str | None:
    """The characters with which a text continues that ends in an expression and "=", in its notation.

    None if the grammar does not read the whole expression, the result is no decimal with few places, or a
    point may separate thousands: "1.200 * 3 =".
    """
    if not text.endswith(("=", "= ")):
        return None
    reader = _Reader(text[-2 * _SENTENCE_CHARS_MAX :])  # a sentence that begins before is not read
    side = _open_side(reader.sentence(reader.last))
    result = _format_result(side) if side and side.operators else None
    return f" {result}" if result and text[-1] == "=" and text[-2:-1].isspace() else result


def _open_side(sentence: Sentence) -> Side | None:
    end = len(sentence.lexemes) - 1
    for index in range(end if sentence.letters.endswith("=") else 0):
        if sentence.letters[index - 1 : index] == "=" or sentence.begins(index):
            parsed = parse_side(sentence.lexemes, index)
            if parsed and parsed[1] == end:
                return parsed[0]
    return None


def _format_result(side: Side) -> str | None:
    texts = {lexeme.kind: lexeme.text for lexeme in side.lexemes}
    currency, percent = texts.get("currency", ""), texts.get("percent", "")
    is_percent = side.quantity.unit == PERCENT
    number = format_number(abs(side.quantity.value) * (100 if is_percent else 1))
    whole, point, decimals = number.partition(".")
    places_max = _MONEY_PLACES if currency else _RESULT_PLACES
    if "/" in number or len(whole + decimals) > _DIGITS_MAX or len(decimals) > places_max:
        return None
    if PATTERNS["thousands"].search(side.text) or bool(percent) != is_percent:
        return None
    if "," in side.text:
        whole = f"{int(whole):,}"
    if decimals and currency:
        decimals = decimals.ljust(_MONEY_PLACES, "0")
    return "-" * (side.quantity.value < 0) + currency + whole + point + decimals + percent
