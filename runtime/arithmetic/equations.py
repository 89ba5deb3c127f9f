"""Equations in prose: which ones the grammar reads, and whether their arithmetic is right.

docs/engine.md defines what an equation is. Everything else is none: it gets no mark.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from . import Step
from .expression import PERCENT, Side, parse_side, stem
from .final_answer import format_number
from .lexer import Lexeme, lex
from .notation import NOTATION

SENTENCE_CHARS_MAX = NOTATION.limits["sentence"]  # longer ones are not read
_BOUNDARY, _MARKER = NOTATION.patterns["boundary"], NOTATION.patterns["marker"]
_BOUNDARY_CHARS = 8  # before the white space in it, and after it
_WORDS = NOTATION.words
_NUMBER_WORDS = _WORDS["cardinals"] | NOTATION.values.keys()
_THINGS = {*map(stem, _WORDS["things"])}
_UNITS = _THINGS.union(
    map(stem, _WORDS["measures"] | _WORDS["symbols"]), NOTATION.texts["fragments"]["currencies"], PERCENT
)
_OPERAND_STARTS = ("number", "currency", "open", "fraction", "operator")
_OPEN_ENDS = ("operator", "relation", "open", "comma", "currency", "fraction", "comparison", "unknown")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in a text.

    Attributes:
        steps: its equations, in order.
        unread: sentences with a relation sign that belongs to none of them, nor to a definition such as
            "total = 12".
    """

    steps: tuple[Step, ...]
    unread: tuple[str, ...]

    def verifies(self, value: str | None) -> bool:
        """Return whether all equations were read and hold, and one results in a value."""
        results = {result for step in self.steps for result in (step.claimed, step.computed)}
        return not self.unread and all(step.ok for step in self.steps) and value in results


def read_equations(text: str, question: str = "") -> Reading:
    """Read the equations of a text; `question` is what was asked, with all that was said before."""
    stream = StepStream(question)
    steps = (*stream.feed(text), *stream.finish())
    return Reading(steps, tuple(stream.unread))


class StepStream:
    """Finds the equations in pieces of a text, in time linear in its length.

    A sentence is read as soon as it ends; further text cannot change it.

    Attributes:
        text: the sentence that has not ended.
        unread: see Reading; of the sentences so far.
    """

    def __init__(self, question: str = "") -> None:
        """Start with no text; the question is what was asked, with all that was said before."""
        lexemes = lex(question)
        self._counted = _counted(lexemes)
        self._other_base = _has_word(lexemes, "bases")  # or times of a clock
        self._before: Sequence[Lexeme] = ()  # the line before, if it may go on
        self._offset, self._searched = 0, 0
        self.text, self.unread = "", list[str]()

    def feed(self, piece: str) -> tuple[Step, ...]:
        """Add text; return the equations that it completes, in order."""
        self.text += piece
        steps, start = list[Step](), 0
        while boundary := _BOUNDARY.search(self.text, max(start, self._searched)):
            steps += self._read(self.text[start : boundary.end()])
            start = self._searched = boundary.end()
        self.text = self.text[start:]
        before = self.text[:-_BOUNDARY_CHARS].rstrip()  # a boundary may begin in it, and end after the text
        self._searched = max(len(before) - _BOUNDARY_CHARS, 0)
        return tuple(steps)

    def finish(self) -> tuple[Step, ...]:
        """End the text; return its last equations."""
        return tuple(self._read(self.text))

    def sentence(self, text: str) -> "Sentence":
        """The sentence of a text that follows the ones before."""
        marker, is_short = _MARKER.match(text), len(text) <= SENTENCE_CHARS_MAX
        lexemes = lex(text, marker.end() if marker else 0) if is_short else []
        self._other_base |= _has_word(lexemes, "bases")
        return Sentence(text, self._offset, self._before, [] if self._other_base else lexemes, self._counted)

    def _read(self, text: str) -> list[Step]:
        sentence = self.sentence(text)
        steps, unread, last = sentence.read()
        if sentence.lexemes:
            is_ended = last == len(sentence.lexemes) or _is_ended(sentence.lexemes, text)
            self._before = () if is_ended else sentence.lexemes
        self._offset += len(text)
        if unread if sentence.lexemes else "=" in text:  # not decimal, or too long
            self.unread.append(text.strip())
        return steps


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or a line.

    Attributes:
        text: its characters.
        offset: how many stand before them.
        before: lexemes of an open line before it.
        lexemes: its own; none if it is too long, or its numbers may not be decimal.
        counted: stems of what is counted in the question.
    """

    text: str
    offset: int
    before: Sequence[Lexeme]
    lexemes: Sequence[Lexeme]
    counted: frozenset[str]

    def read(self) -> tuple[list[Step], int, int]:
        """Return the equations, how many relation signs belong to none, and the index after the last."""
        signs = sum(one.kind in ("relation", "comparison") for one in self.lexemes)
        unread = signs if _has_number(self.lexemes) else 0
        steps, index, last = list[Step](), 0, 0
        while unread and index < len(self.lexemes):
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
        before = self.lexemes[:index] or self.before
        if not before:
            return True
        context, last = [*self.before, *self.lexemes[:index]], before[-1]
        words, alone = _last_words(context), len(context) <= 2 or context[-2].kind == "comma"
        if alone and len(words) == 1 and words[0] in _WORDS["connectives"]:
            return last.kind in ("word", "comma")  # "So,"
        if last.kind == "stop":
            return last.text == ":" and _is_label(context[:-1], own_line=index == 0)
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
        return self._step(sides[0], claimed, signs[0], all(verdicts)), names + len(signs), end

    def _step(self, left: Side, claimed: Side, sign: Lexeme, ok: bool) -> Step:
        """The step of a chain of its first side, and its first wrong one or else its last."""
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

    def _is_vague(self, start: int) -> bool:
        """Whether a label may be part of what is calculated: "Pythagoras:"."""
        before = self.lexemes[:start] or self.before
        return len(before) > 0 and before[-1].kind == "stop" and (start > 0 or _has_number(before))

    def _names(self, index: int) -> int:
        """How many signs before an index only name it: 2 in "total = price * count = 3 * 4"; else 0."""
        before = _since(_since(self.lexemes[:index], "stop"), "comma")
        if not before or before[-1].kind != "relation" or before[0].kind == "relation" or _has_number(before):
            return 0
        signs = sum(one.kind == "relation" for one in before)
        return signs if all(one.kind in ("word", "relation", "operator") for one in before) else 0

    def _end(self, index: int, start: int) -> int | None:
        """The index after an equation's last side and what may follow it; None if more belongs to it."""
        words = _words(self.lexemes[index:])
        if words and "_".join(words) not in _WORDS["suffixes"]:
            return None
        index += len(words)
        rest = self.lexemes[index : index + 2]
        kind, then = [*(one.kind for one in rest), "", ""][:2]
        if start and self.lexemes[start - 1].kind == "open":
            ends = kind == "close" and then in ("", "stop", "comma")
        elif kind == "comma":
            ends = then == "word" and rest[1].text.lower() in _WORDS["connectives"]
        else:
            ends = then == "" and (kind == "" or rest[0].text in (".", ";"))
        return index if ends else None

    def _verdict(self, left: Side, sign: Lexeme, right: Side) -> bool | None:
        """Whether two sides are equal; None if that is not certain."""
        value, claimed = left.quantity.value, right.quantity.value
        unit, noun = left.quantity.unit, right.quantity.unit
        is_known = noun in _UNITS or noun in self.counted
        if noun not in ("", unit) and (unit or not is_known or (len(noun) == 1 and noun.isalpha())):
            return None  # "7 m" may be 7 million
        places = len(right.number.text.partition(".")[2]) + 2 * (noun == PERCENT)
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
            or (off < 1 if is_result else right.number.value == value)  # rounded; "3 * 4 = 12 + 5"
            or claimed in (value * 100, value / 100)  # in percent?
            or (is_range and "-" in left.operators)
        )
        return None if doubtful else False


def _is_aside(before: Sequence[Lexeme]) -> bool:
    """Whether a parenthesis interrupts a sentence: "He has 18 eggs (12 + 6 = 18)."."""
    opening, clause, words = before[-1], _since(before[:-1], "stop"), _last_words(before[:-1])
    if opening.text != "(" or opening.tight or not words or words[0] in _WORDS["parts"]:
        return False
    return _has_word(clause, "verbs", "links")


def _introduces(before: Sequence[Lexeme], words: Sequence[str]) -> bool:
    """Whether an expression follows a verb, or the word that begins a clause."""
    word, previous = words[0], words[1] if words[1:] else ""
    if previous in _WORDS["parts"] or previous in _NUMBER_WORDS:
        return False  # "minus the cost 3 + 4"
    is_link = word in _WORDS["links"] and not _has_number(_since(before, "stop"))
    return is_link or word in _WORDS["verbs"] or word in _WORDS["clauses"]


def _is_label(before: Sequence[Lexeme], *, own_line: bool) -> bool:
    """Whether what ends in a colon only names the expression after it."""
    words = [word for word in _last_words(before) if word not in _WORDS["links"]]  # "the average is:"
    named = own_line or (words != [] and not _has_number(_since(before, "stop")))
    return named and _WORDS["parts"].isdisjoint(words[:1])


def _last_words(lexemes: Sequence[Lexeme]) -> list[str]:
    """The words at the end, but for a comma or parenthesis after them; the last is the first."""
    end = len(lexemes) - (len(lexemes) > 0 and lexemes[-1].kind in ("comma", "close"))
    return _words(reversed(lexemes[:end]))


def _words(lexemes: Iterable[Lexeme]) -> list[str]:
    """The words before any other lexeme, in lower case."""
    return [one.text.lower() for one in takewhile(lambda one: one.kind == "word", lexemes)]


def _since(lexemes: Sequence[Lexeme], kind: str) -> Sequence[Lexeme]:
    """The lexemes after the last one of a kind."""
    return lexemes[max((n for n, one in enumerate(lexemes, 1) if one.kind == kind), default=0) :]


def _is_ended(lexemes: Sequence[Lexeme], text: str) -> bool:
    """Whether nothing of a line belongs to the next one."""
    last = next((one for one in reversed(lexemes) if one.kind != "stop"), None)
    if not last or last.kind in _OPEN_ENDS or last.text.lower() in _WORDS["parts"]:
        return False
    if lexemes[-1].kind == "stop":
        return lexemes[-1].text in (".", "!", "?", ";")
    is_block = text[len(text.rstrip()) :].count("\n") > 1  # a blank line follows
    return is_block and not (last.kind == "word" and _has_number(lexemes))


def _counted(lexemes: Sequence[Lexeme]) -> frozenset[str]:
    """Stems of the words that stand with a number: "12 eggs", "twelve red eggs"."""
    numbers = (index for index, one in enumerate(lexemes, 1) if _has_number([one]))
    near = (word for index in numbers for word in _words(lexemes[index : index + 2]))
    return frozenset(stem(word) for word in near if word not in _NUMBER_WORDS)


def _has_word(lexemes: Sequence[Lexeme], *tables: str) -> bool:
    return any(one.text.lower() in _WORDS[table] for one in lexemes for table in tables)


def _has_number(lexemes: Sequence[Lexeme]) -> bool:
    parts = (part for one in lexemes for part in one.text.lower().split("-"))
    return any(one.kind == "number" for one in lexemes) or not _NUMBER_WORDS.isdisjoint(parts)
