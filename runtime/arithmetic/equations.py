"""Equations in prose: which ones the grammar reads, and whether their arithmetic is right.

docs/engine.md defines what an equation is. Everything else is none: it gets no mark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from math import floor

from . import Step
from .expression import Side, common_unit, parse_mixed_number, parse_side
from .final_answer import format_number
from .lexer import Lexeme, lex
from .notation import NOTATION

SENTENCE_CHARS_MAX = NOTATION.limits["sentence"]  # longer ones are not read
_BOUNDARY, _MARKER = NOTATION.patterns["boundary"], NOTATION.patterns["marker"]
_BOUNDARY_CHARS = 8  # before the white space in it, and after it
_WORDS = NOTATION.words
_NUMBER_WORDS = _WORDS["cardinals"] | NOTATION.values.keys()
_UNITS = (
    _WORDS["things"] | _WORDS["measures"] | _WORDS["symbols"] | {*NOTATION.texts["fragments"]["currencies"]}
)
_LETTERS = {symbol for symbol in _WORDS["symbols"] if len(symbol) == 1}  # "7 m" may be 7 million
_SUFFIXES = [suffix.split("_") for suffix in _WORDS["suffixes"]]
_OPERAND_STARTS = ("number", "currency", "open", "fraction", "operator")
_OPEN_ENDS = ("operator", "relation", "open", "comma", "currency", "fraction", "comparison", "unknown")
_STOPS = (".", "!", "?", ";")
_OPENER = 2  # lexemes of "So," and "Step 3"
_NEAR = 2  # words after a number that it may count


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in a text.

    Attributes:
        steps: its equations, in order.
        unread: how many relation signs belong to none of them, nor to a definition such as "total = 12".
    """

    steps: tuple[Step, ...]
    unread: int

    def verifies(self, value: str | None) -> bool:
        """Return whether all equations were read and hold, and one results in a value."""
        results = {result for step in self.steps for result in (step.claimed, step.computed)}
        return not self.unread and all(step.ok for step in self.steps) and value in results


def read_equations(text: str, question: str = "") -> Reading:
    """Read the equations of a text.

    Args:
        text: what was answered.
        question: what was asked, with all that was said before.
    """
    stream = StepStream(question)
    steps = (*stream.feed(text), *stream.finish())
    return Reading(steps, stream.unread)


def check_steps(text: str, question: str = "") -> tuple[Step, ...]:
    """Check every equation of a text that the grammar reads, in order; see read_equations()."""
    return read_equations(text, question).steps


class StepStream:
    """Finds the equations in pieces of a text, in time linear in its length.

    A sentence is read as soon as it ends; further text cannot change it.

    Attributes:
        unread: see Reading; of the sentences so far.
    """

    def __init__(self, question: str = "") -> None:
        """Start with no text; the question is what was asked, with all that was said before."""
        lexemes = lex(question)
        self._counted = _counted(lexemes)
        self._other_base = _has_word(lexemes, "bases")  # or times of a clock
        self._carried: Sequence[Lexeme] = ()  # of the line before, if it may go on
        self._text, self._offset, self._searched = "", 0, 0
        self.unread = 0

    def feed(self, piece: str) -> tuple[Step, ...]:
        """Add text; return the equations that it completes, in order."""
        self._text += piece
        steps, start = list[Step](), 0
        while boundary := _BOUNDARY.search(self._text, max(start, self._searched)):
            steps += self._read(self._text[start : boundary.end()])
            start = self._searched = boundary.end()
        self._text = self._text[start:]
        before = self._text[:-_BOUNDARY_CHARS].rstrip()  # a boundary may begin in it, and end after the text
        self._searched = max(len(before) - _BOUNDARY_CHARS, 0)
        return tuple(steps)

    def finish(self) -> tuple[Step, ...]:
        """End the text; return its last equations."""
        return tuple(self._read(self._text))

    def rest(self) -> "Sentence":
        """The sentence that has not ended."""
        return self._sentence(self._text)

    def _sentence(self, text: str) -> "Sentence":
        marker, is_short = _MARKER.match(text), len(text) <= SENTENCE_CHARS_MAX
        own = lex(text, marker.end() if marker else 0) if is_short else []
        self._other_base |= _has_word(own, "bases")
        is_read = is_short and not self._other_base
        lexemes = [*self._carried, *own]
        return Sentence(text, self._offset, lexemes, len(self._carried), self._counted, is_read)

    def _read(self, text: str) -> list[Step]:
        sentence = self._sentence(text)
        steps, unread, last = sentence.read()
        own = sentence.lexemes[sentence.first :]
        self._carried = () if last == len(sentence.lexemes) or _is_ended(own, text) else own
        self._offset += len(text)
        self.unread += unread if own else text.count("=")  # too long
        return steps


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or a line.

    Attributes:
        text: its characters.
        offset: how many stand before them.
        lexemes: those of an open line before it, and its own.
        first: index of its first lexeme.
        counted: what is counted in the question.
        is_read: whether it may have equations; otherwise it is too long, or its numbers may not be decimal.
    """

    text: str
    offset: int
    lexemes: Sequence[Lexeme]
    first: int
    counted: frozenset[str]
    is_read: bool

    def read(self) -> tuple[list[Step], int, int]:
        """Return the equations, how many relation signs belong to none, and the index after the last."""
        own = self.lexemes[self.first :]
        unread = sum(one.kind in ("relation", "comparison") for one in own) if _has_number(own) else 0
        steps, index, last = list[Step](), self.first, 0
        while unread and self.is_read and index < len(self.lexemes):
            found = self._chain(index) if self.begins(index) else None
            if found:
                step, signs, index = found
                steps += [step] if step else []
                unread, last = unread - signs, index
            else:
                index += 1
        return steps, unread, last

    def begins(self, index: int) -> bool:
        """Return whether an expression may begin at an index: nothing before it belongs to it."""
        if self.lexemes[index].kind not in _OPERAND_STARTS:
            return False
        before = self.lexemes[:index]
        words, last = _last_words(before), before[-1] if before else None
        alone = index <= _OPENER or before[-2].kind == "comma"
        if not last or (alone and len(words) == 1 and words[0] in _WORDS["connectives"]):
            return last is None or last.kind in ("word", "comma")
        if last.kind == "stop":
            return last.text == ":" and _is_label(before[:-1], own_line=index == self.first)
        if last.kind == "word":
            return _introduces(before, words)
        return self._names(index) > 0 or _is_aside(before)

    def _chain(self, start: int) -> tuple[Step | None, int, int] | None:
        """Read the equation that begins at an index; None if it is none.

        Returns:
            The equation, None for a definition ("total = 12"); the number of its signs; the index after it.
        """
        sides, signs, index = list[Side](), list[Lexeme](), start
        while parsed := parse_side(self.lexemes, index):
            side, index = parsed
            sides.append(side)
            if self.lexemes[index : index + 1] == [] or self.lexemes[index].kind != "relation":
                break
            signs.append(self.lexemes[index])
            index += 1
        end, names = self._end(index, start) if parsed else None, self._names(start)
        if end is None or not (sides[0].operators if signs else names):
            return None
        if not signs:
            return None, names, end
        verdicts = [self._verdict(*pair) for pair in zip(sides, signs, sides[1:], strict=False)]
        if None in verdicts or (False in verdicts and self._is_vague(start)):
            return None
        claimed = sides[verdicts.index(False) + 1] if False in verdicts else sides[-1]
        return self._step(sides[0], claimed, signs[0].start, all(verdicts)), names + len(signs), end

    def _step(self, left: Side, claimed: Side, sign: int, ok: bool) -> Step:
        """The step of a chain of its first side, and its first wrong one or else its last."""
        expression = self.text[left.start : sign].rstrip(" \t\n\\&")
        scale = 100 if claimed.quantity.percent else 1
        return Step(
            expression,
            format_number(claimed.quantity.value * scale),
            format_number(left.quantity.value * scale),
            ok,
            left.start + self.offset,
            claimed.start + self.offset,
            claimed.end + self.offset,
        )

    def _is_vague(self, start: int) -> bool:
        """Whether a label may be part of what is calculated: "Pythagoras:", but not "Step 2:"."""
        before = self.lexemes[:start]
        if not before or before[-1].kind != "stop":
            return False
        label = _since(before[:-1], "stop")
        return not _is_step(label) and (start > self.first or _has_number(label))

    def _names(self, index: int) -> int:
        """How many signs before an index only name it: 2 in "total = price * count = 3 * 4"; else 0."""
        before = _since(_since(self.lexemes[self.first : index], "stop"), "comma")
        if not before or before[-1].kind != "relation" or before[0].kind == "relation" or _has_number(before):
            return 0
        signs = sum(one.kind == "relation" for one in before)
        return signs if all(one.kind in ("word", "relation", "operator") for one in before) else 0

    def _end(self, index: int, start: int) -> int | None:
        """The index after an equation's last side and what may follow it; None if more belongs to it."""
        words = [one.text.lower() for one in takewhile(lambda one: one.kind == "word", self.lexemes[index:])]
        index += next((len(suffix) for suffix in _SUFFIXES if words[: len(suffix)] == suffix), 0)
        rest = self.lexemes[index : index + 2]
        kind, then = [*(one.kind for one in rest), "", ""][:2]
        if start and self.lexemes[start - 1].kind == "open":
            ends = kind == "close" and then in ("", "stop", "comma")
        elif kind == "comma":
            ends = then == "word" and rest[1].text.lower() in _WORDS["connectives"]
        else:
            ends = kind == "" or (
                kind == "stop" and then in ("", "close") and rest[0].text in (".", ":", ";")
            )
        return index + (kind != "") if ends else None

    def _verdict(self, left: Side, sign: Lexeme, right: Side) -> bool | None:
        """Whether two sides are equal; None if that is not certain."""
        unit, noun = common_unit(left.quantity, right.quantity), right.quantity.unit
        is_known = noun in self.counted or (noun in _UNITS and noun not in _LETTERS)
        if unit is None and noun and (left.quantity.unit or not is_known):
            return None
        value, claimed = left.quantity.value, right.quantity.value
        if value == claimed or (sign.text != "=" and _is_rounded(value, right)):
            return True
        certain = noun in _WORDS["things"] if unit is None else not unit or unit in _UNITS | self.counted
        running = right.operators != () and parse_mixed_number(right.number) == value  # "3 * 4 = 12 + 5"
        doubtful = left.doubtful or right.doubtful or running or _may_be(left, right)
        return False if certain and sign.text == "=" and not doubtful else None


def _is_aside(before: Sequence[Lexeme]) -> bool:
    """Whether a parenthesis interrupts a sentence: "He has 18 eggs (12 + 6 = 18)."."""
    opening, clause, words = before[-1], _since(before[:-1], "stop"), _last_words(before[:-1])
    if opening.text != "(" or opening.tight or not words or words[0] in _WORDS["parts"]:
        return False
    return _has_word(clause, "verbs") or _has_word(clause, "links")


def _introduces(before: Sequence[Lexeme], words: Sequence[str]) -> bool:
    """Whether an expression follows a verb, or the word that begins a clause."""
    word, previous = words[0], words[1] if words[1:] else ""
    if previous in _WORDS["parts"] or previous in _NUMBER_WORDS:
        return False  # "minus the cost 3 + 4"
    is_link = word in _WORDS["links"] and not _has_number(_since(before, "stop"))
    return is_link or word in _WORDS["verbs"] or word in _WORDS["clauses"]


def _is_label(before: Sequence[Lexeme], *, own_line: bool) -> bool:
    """Whether what ends in a colon only names the expression after it."""
    clause = _since(before, "stop")
    words = [word for word in _last_words(before) if word not in _WORDS["links"]]  # "the average is:"
    if _is_step(clause):
        return True
    named = words[:1] != [] and not _has_number(clause)
    return (own_line or named) and _WORDS["parts"].isdisjoint(words[:1])


def _is_step(label: Sequence[Lexeme]) -> bool:
    return len(label) == _OPENER and label[0].text.lower() == "step"


def _last_words(lexemes: Sequence[Lexeme]) -> list[str]:
    """The words at the end, but for a comma or parenthesis after them; the last is the first."""
    end = len(lexemes) - (len(lexemes) > 0 and lexemes[-1].kind in ("comma", "close"))
    return [one.text.lower() for one in takewhile(lambda one: one.kind == "word", reversed(lexemes[:end]))]


def _since(lexemes: Sequence[Lexeme], kind: str) -> Sequence[Lexeme]:
    """The lexemes after the last one of a kind."""
    return lexemes[max((n for n, one in enumerate(lexemes, 1) if one.kind == kind), default=0) :]


def _is_ended(lexemes: Sequence[Lexeme], text: str) -> bool:
    """Whether nothing of a line belongs to the next one."""
    inner, stop = list(lexemes), ""
    while inner and inner[-1].kind == "stop":
        stop = inner.pop().text
    if not inner or inner[-1].kind in _OPEN_ENDS or inner[-1].text.lower() in _WORDS["parts"]:
        return not lexemes
    is_block = text[len(text.rstrip()) :].count("\n") > 1  # a blank line follows
    return stop in _STOPS if stop else is_block and not (inner[-1].kind == "word" and _has_number(inner))


def _counted(lexemes: Sequence[Lexeme]) -> frozenset[str]:
    """The words that stand with a number: "12 eggs", "twelve red eggs"."""
    found, near = set[str](), 0
    for lexeme in lexemes:
        word = lexeme.text.lower()
        near = near - 1 if lexeme.kind == "word" else 0
        if near >= 0 and lexeme.kind == "word":
            found.add(word)
        if lexeme.kind == "number" or word in _NUMBER_WORDS:
            near = _NEAR
    return frozenset(found - _NUMBER_WORDS)


def _has_word(lexemes: Sequence[Lexeme], table: str) -> bool:
    return any(one.kind == "word" and one.text.lower() in _WORDS[table] for one in lexemes)


def _has_number(lexemes: Sequence[Lexeme]) -> bool:
    parts = (part for one in lexemes for part in one.text.lower().split("-"))
    return any(one.kind == "number" for one in lexemes) or not _NUMBER_WORDS.isdisjoint(parts)


def _is_rounded(value: Fraction, right: Side) -> bool:
    """Whether a right side is a value rounded to its decimal places, half up or half to even."""
    scale, claimed = 10 ** len(right.number.partition(".")[2]), right.quantity.value
    rounded = {round(abs(value) * scale), floor(abs(value) * scale + Fraction(1, 2))}
    return not right.operators and claimed * value >= 0 and abs(claimed) * scale in rounded


def _may_be(left: Side, right: Side) -> bool:
    """Whether a value may be meant by another: rounded, in percent, or as a range."""
    value, claimed = left.quantity.value, right.quantity.value
    places = len(right.number.partition(".")[2])
    near = not right.operators and abs(value - claimed) * 10**places < 1
    counts = value < 0 < claimed or (value + 1 == claimed and right.quantity.unit != left.quantity.unit)
    return near or claimed in (value * 100, value / 100) or (counts and "-" in left.operators)
