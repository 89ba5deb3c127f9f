"""Reads GBNF, llama.cpp's notation of grammars, as the library does, and counts what it would make of it.

The library's own reader loops on `{5,2}`, overflows its stack on nested brackets, takes an empty text for no
grammar at all, `[]` for nothing and `{1,1000000}` for `{1,}`. So it only sees texts that were read here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Never

from ...errors import RequestError

RULES_MAX = 1 << 12  # brackets among them, of which the library makes rules
NESTING_MAX = 64  # brackets in brackets
REPEATS_MAX = 1000
MULTIPLIED_MAX = 2000  # rules in brackets times repetitions: the library's own bound
ELEMENTS_MAX = 1 << 18  # characters, ranges and names, repetitions written out
POINT_MAX, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)

CHARACTER = ""  # stands for a character, where a rule's name may stand
_WORD = re.compile(
    r"""(?P<space>[ \t]+|\#[^\r\n]*) | (?P<newline>[\r\n]+) | (?P<name>[A-Za-z0-9-]+) | (?P<mark>::=|[()|])
    | (?P<literal>"[^"\\]*(?:\\.[^"\\]*)*") | (?P<set>\[\^?[^]\\]*(?:\\.[^]\\]*)*\]) | (?P<any>\.)
    | (?P<repeat>[*+?]|\{[ \t]*([0-9]+)[ \t]*(,[ \t]*(?:([0-9]+)[ \t]*)?)?\})""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r'\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([tnr\\"\[\]-]))|([^\\])', re.DOTALL
)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r"}
_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Item(NamedTuple):
    """A part of an alternative.

    Attributes:
        target: the name of a rule, or CHARACTER for one or more characters.
        skippable: whether it may be left out.
        times: how often the library writes it out; 1 only if it cannot come again.
    """

    target: str
    skippable: bool = False
    times: int = 1


@dataclass(slots=True)
class Rule:
    """What stands behind a name, or in brackets.

    Attributes:
        alternatives: what it may be.
        size: an upper bound of the library's elements.
    """

    alternatives: list[list[Item]] = field(default_factory=list)
    size: int = 0


def read_gbnf(text: str) -> dict[str, Rule]:
    """The rules by name. Those of brackets have names with an underscore, as no name in a text has.

    Raises:
        RequestError: it is wrong or beyond the bounds, or names tokens (`<[1]>`), which only a model's
            vocabulary could check.
    """
    if "\0" in text:
        raise RequestError(f"grammar: a NUL stands at character {text.index(chr(0))}")
    return _Reader(text).rules


class _Word(NamedTuple):
    kind: str
    text: str
    line: int
    counts: tuple[str | None, ...] = ()


def _words(text: str) -> Iterator[_Word]:
    """The words of a grammar; a newline is one only where it ends a rule."""
    place, line, depth, before = 0, 1, 0, "newline"
    while match := _WORD.match(text, place):
        word, kind = match[0], str(match.lastgroup)
        kind = word if kind == "mark" else kind
        depth += (kind == "(") - (kind == ")")
        if kind != "space" and (kind != "newline" or (depth <= 0 and before not in ("newline", "::=", "|"))):
            yield _Word(kind, word, line, match.groups()[-3:])
            before = kind
        place, line = match.end(), line + word.count("\n")
    yield _Word("the end" if place == len(text) else "", text[place : place + 20], line)


class _Size(NamedTuple):
    """What a repetition multiplies: elements, and rules as the library counts them."""

    elements: int = 1
    rules: int = 1


class _Reader:
    """Reads the words. A repetition is counted as the library writes it out, but kept as one item."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Rule] = {}
        self._names: set[str] = set()
        self._made = self._elements = 0  # rules without a name in the text, and elements of all rules
        self._words = _words(text)
        self._word = next(self._words)
        while self._word.kind != "the end":
            self._rule()

    def _fail(self, message: str) -> Never:
        raise RequestError(f"grammar at line {self._word.line}: {message}")

    def _take(self, *kinds: str) -> _Word:
        word = self._word
        if word.kind not in kinds:
            self._fail(f"{' or '.join(kinds)} is expected, not {word.text[:20]!r}")
        self._word = next(self._words, word)
        return word

    def _grow(self, elements: int) -> None:
        self._elements += elements
        if self._elements > ELEMENTS_MAX:
            self._fail(f"more than {ELEMENTS_MAX} elements, repetitions written out")

    def _rule(self) -> None:
        name = self._take("name").text
        if name in self.rules:
            self._fail(f"rule {name[:40]} is there twice")
        self._names.add(name)
        self._take("::=")
        self._alternatives(name, 0)
        self._take("newline", "the end")

    def _alternatives(self, name: str, depth: int) -> None:
        if depth > NESTING_MAX:
            self._fail(f"brackets more than {NESTING_MAX} deep")
        if len(self.rules) >= RULES_MAX:
            self._fail(f"more than {RULES_MAX} rules and brackets")
        before = self._elements
        rule = self.rules[name] = Rule()
        rule.alternatives.append(self._sequence(name, depth))
        while self._word.kind == "|":
            self._take("|")
            self._grow(1)
            rule.alternatives.append(self._sequence(name, depth))
        rule.size = self._elements - before + 1

    def _sequence(self, name: str, depth: int) -> list[Item]:
        items: list[Item] = []
        size = _Size(0)  # of the last item; 0 elements if there is none to repeat
        while self._word.kind in _PARTS or self._word.kind == "repeat":
            if self._word.kind == "repeat":
                items[-1:], size = self._repeat(items[-1:] if size.elements else [], size)
                continue
            target, size = self._part(name, depth)
            self._grow(size.elements)
            items += [Item(target)] if size.elements else []
        return items

    def _part(self, name: str, depth: int) -> tuple[str, _Size]:
        word = self._take(*_PARTS)
        if word.kind == "(":
            return self._brackets(name, depth)
        if word.kind == "name":
            self._names.add(word.text)
            return word.text, _Size()
        try:
            return CHARACTER, _Size(_PARTS[word.kind](word.text))
        except ValueError as error:
            self._fail(f"{word.text[:40]!r}: {error}")

    def _brackets(self, name: str, depth: int) -> tuple[str, _Size]:
        before = self._made + len(self._names)
        self._made += 1
        inner = f"{name.partition('_')[0]}_{self._made}"
        self._alternatives(inner, depth + 1)
        self._take(")")
        return inner, _Size(1, self._made + len(self._names) - before)

    def _repeat(self, items: list[Item], size: _Size) -> tuple[list[Item], _Size]:
        """Repeat an item: the library makes of S{m,n} m times S, and n - m rules that hold S."""
        sign = self._take("repeat")
        if not items or items[0].skippable:
            self._fail(f"{sign.text[:40]!r} repeats nothing, or what may be empty")
        least, most = self._counts(sign)
        rules = size.rules * (most or max(least, 1))
        if rules >= MULTIPLIED_MAX:
            self._fail(f"{sign.text[:40]!r} multiplies to {rules} rules; they must be below {MULTIPLIED_MAX}")
        optional = 1 if most is None else most - least
        self._made += optional
        self._grow((size.elements + 3) * (least + optional))
        times = items[0].times * (least + optional + (most is None))
        return [Item(items[0].target, least == 0, times)], _Size(size.elements * least + 1, rules)

    def _counts(self, sign: _Word) -> tuple[int, int | None]:
        if sign.text in _SIGNS:
            return _SIGNS[sign.text]
        least, comma, most = sign.counts
        low = _count(least or "")
        high = low if comma is None else None if most is None else _count(most)
        if low > REPEATS_MAX or (high is not None and not max(low, 1) <= high <= REPEATS_MAX):
            self._fail(f"{sign.text[:40]!r}: from m to n times needs m <= n and 1 <= n <= {REPEATS_MAX}")
        return low, high


def _count(digits: str) -> int:
    return int(digits) if len(digits) <= 9 else REPEATS_MAX + 1


def _characters(text: str) -> list[tuple[str, int]]:
    """The characters of a literal or a set: as they are written, and their code points."""
    found, place = [], 0
    while place < len(text):
        match = _CHARACTER.match(text, place)
        if not match:
            raise ValueError(f"unknown escape {text[place : place + 2]!r}")
        *hexadecimal, escaped, plain = match.groups()
        digits = next(filter(None, hexadecimal), None)
        point = int(digits, 16) if digits else ord(plain or _ESCAPES.get(escaped, escaped))
        if point > POINT_MAX:
            raise ValueError(f"{match[0]} is no code point")
        found.append((match[0], point))
        place = match.end()
    return found


def _read_literal(text: str) -> int:
    """Check a literal; its number of elements."""
    points = [point for _, point in _characters(text[1:-1])]
    if any(point == 0 or SURROGATES[0] <= point <= SURROGATES[1] for point in points):
        raise ValueError("no text has a NUL or half of a surrogate pair")
    return len(points)


def _read_set(text: str) -> int:
    """Check a set of characters; its number of elements."""
    negated = text.startswith("[^")
    characters = _characters(text[1 + negated : -1])
    ranges: list[tuple[int, int]] = []
    place = elements = 0
    while place < len(characters):
        is_range = characters[place + 1 : place + 2] == [("-", ord("-"))] and place + 2 < len(characters)
        end = place + 2 if is_range else place
        ranges.append((characters[place][1], characters[end][1]))
        place, elements = end + 1, elements + 1 + is_range
    if any(low > high for low, high in ranges):
        raise ValueError("a range ends before it begins")
    if not ranges or _extent(ranges) == (POINT_MAX - 2048 if negated else 0):
        raise ValueError("no character fits")
    return elements


def _extent(ranges: list[tuple[int, int]]) -> int:
    """How many characters that a text can have are in the ranges."""
    extent, place = 0, 1
    for first, high in sorted(ranges):
        low, place = max(first, place), max(high + 1, place)
        halves = min(place - 1, SURROGATES[1]) - max(low, SURROGATES[0]) + 1
        extent += max(place - low, 0) - max(halves, 0)
    return extent


_PARTS = {"literal": _read_literal, "set": _read_set, "any": len, "name": len, "(": len}
