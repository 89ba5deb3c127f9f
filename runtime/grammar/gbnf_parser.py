"""Parser for GBNF, llama.cpp's grammar notation. It also counts what llama.cpp would allocate for a grammar.

llama.cpp's own parser loops on `{5,2}`, overflows its stack on nested groups, and reads an empty text as no
grammar, `[]` as an empty sequence and `{1,1000000}` as `{1,}`. It therefore only sees texts that passed here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Never

from ...errors import RequestError

RULES_MAX = 1 << 12  # named rules and groups; llama.cpp turns each group into a rule
GROUP_DEPTH_MAX = 64
REPEATS_MAX = 1000
EXPANDED_RULES_MAX = 2000  # rules in a group times its repetitions: llama.cpp's own limit
ELEMENTS_MAX = 1 << 18  # characters, ranges and names, with repetitions expanded
CODE_POINT_MAX, SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)

CHARACTER = ""  # the symbol of one or more characters; the name of a rule is never empty
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+|\#[^\r\n]*) | (?P<newline>[\r\n]+) | (?P<name>[A-Za-z0-9-]+) | (?P<mark>::=|[()|])
    | (?P<literal>"[^"\\]*(?:\\.[^"\\]*)*") | (?P<set>\[\^?[^]\\]*(?:\\.[^]\\]*)*\]) | (?P<any>\.)
    | (?P<quantifier>[*+?]|\{[ \t]*([0-9]+)[ \t]*(,[ \t]*(?:([0-9]+)[ \t]*)?)?\})""",
    re.VERBOSE | re.DOTALL,
)
_CHARACTER = re.compile(
    r'\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([tnr\\"\[\]-]))|([^\\])', re.DOTALL
)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r"}
_QUANTIFIERS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Item(NamedTuple):
    """One item of an alternative.

    Attributes:
        symbol: name of a rule, or CHARACTER for one or more characters.
        optional: whether the item may be omitted.
        copies: number of copies of the item that llama.cpp writes; 1 only if the item cannot repeat.
    """

    symbol: str
    optional: bool = False
    copies: int = 1


@dataclass(slots=True)
class Rule:
    """The right side of a rule, or the content of a group.

    Attributes:
        alternatives: the sequences that the rule can expand to.
        elements: upper bound of the number of llama.cpp's grammar elements.
    """

    alternatives: list[list[Item]] = field(default_factory=list)
    elements: int = 0


def parse_gbnf(text: str) -> dict[str, Rule]:
    """Parse a grammar.

    Returns:
        The rules by name. A group has the name of the rule around it, an underscore and a number; a name in
        GBNF has no underscore.

    Raises:
        RequestError: the grammar is malformed, exceeds a limit, or refers to tokens (`<[1]>`), which only a
            model's vocabulary could check.
    """
    if "\0" in text:
        raise RequestError(f"grammar: NUL at character {text.index(chr(0))}")
    return _GbnfParser(text).rules


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    counts: Sequence[str | None] = ()  # see parse_quantifier()


def _tokenize(text: str) -> Iterator[_Token]:
    """Yield the tokens of a grammar. A newline is a token only where it ends a rule."""
    position, line, depth, previous = 0, 1, 0, "newline"
    while match := _TOKEN.match(text, position):
        lexeme, kind = match[0], str(match.lastgroup)
        kind = lexeme if kind == "mark" else kind
        depth += (kind == "(") - (kind == ")")
        ends_rule = depth <= 0 and previous not in ("newline", "::=", "|")
        if kind != "space" and (kind != "newline" or ends_rule):
            yield _Token(kind, lexeme, line, match.groups()[-3:])
            previous = kind
        position, line = match.end(), line + lexeme.count("\n")
    yield _Token("end of text" if position == len(text) else "", text[position : position + 20], line)


class _Size(NamedTuple):
    """What a repetition multiplies: elements, and rules as llama.cpp counts them."""

    elements: int = 1
    rules: int = 1


class _GbnfParser:
    """Recursive-descent parser. A repetition stays one item, but counts with all its copies."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, Rule] = {}
        self._names: set[str] = set()
        self._generated = self._elements = 0  # rules made for groups and repetitions; elements of all rules
        self._tokens = _tokenize(text)
        self._token = next(self._tokens)
        while self._token.kind != "end of text":
            self._rule()

    def _fail(self, message: str) -> Never:
        raise RequestError(f"grammar at line {self._token.line}: {message}")

    def _expect(self, *kinds: str) -> _Token:
        token = self._token
        if token.kind not in kinds:
            self._fail(f"expected {' or '.join(kinds)}, found {token.text[:20]!r}")
        self._token = next(self._tokens, token)
        return token

    def _add_elements(self, count: int) -> None:
        self._elements += count
        if self._elements > ELEMENTS_MAX:
            self._fail(f"more than {ELEMENTS_MAX} elements with repetitions expanded")

    def _rule(self) -> None:
        name = self._expect("name").text
        if name in self.rules:
            self._fail(f"rule {name[:40]} is defined twice")
        self._names.add(name)
        self._expect("::=")
        self._alternatives(name, 0)
        self._expect("newline", "end of text")

    def _alternatives(self, name: str, depth: int) -> None:
        if depth > GROUP_DEPTH_MAX:
            self._fail(f"groups are nested more than {GROUP_DEPTH_MAX} deep")
        if len(self.rules) >= RULES_MAX:
            self._fail(f"more than {RULES_MAX} rules and groups")
        before = self._elements
        rule = self.rules[name] = Rule()
        rule.alternatives.append(self._sequence(name, depth))
        while self._token.kind == "|":
            self._expect("|")
            self._add_elements(1)
            rule.alternatives.append(self._sequence(name, depth))
        rule.elements = self._elements - before + 1

    def _sequence(self, name: str, depth: int) -> list[Item]:
        items: list[Item] = []
        size = _Size(0)  # of the last item; 0 elements if there is none to repeat
        while self._token.kind in _ELEMENT_COUNTERS or self._token.kind == "quantifier":
            if self._token.kind == "quantifier":
                item, size = self._repetition(items.pop() if size.elements else None, size)
                items.append(item)
                continue
            symbol, size = self._primary(name, depth)
            self._add_elements(size.elements)
            items += [Item(symbol)] if size.elements else []
        return items

    def _primary(self, name: str, depth: int) -> tuple[str, _Size]:
        token = self._expect(*_ELEMENT_COUNTERS)
        if token.kind == "(":
            return self._group(name, depth)
        if token.kind == "name":
            self._names.add(token.text)
            return token.text, _Size()
        try:
            return CHARACTER, _Size(_ELEMENT_COUNTERS[token.kind](token.text))
        except ValueError as error:
            self._fail(f"{token.text[:40]!r}: {error}")

    def _group(self, name: str, depth: int) -> tuple[str, _Size]:
        before = self._generated + len(self._names)
        self._generated += 1
        group = f"{name.partition('_')[0]}_{self._generated}"
        self._alternatives(group, depth + 1)
        self._expect(")")
        return group, _Size(1, self._generated + len(self._names) - before)

    def _repetition(self, item: Item | None, size: _Size) -> tuple[Item, _Size]:
        """Repeat an item. llama.cpp expands S{m,n} to m times S and n - m rules that contain S."""
        quantifier = self._expect("quantifier")
        if item is None or item.optional:
            self._fail(f"{quantifier.text[:40]!r} repeats nothing, or an item that may be empty")
        try:
            low, high = parse_quantifier(quantifier.text, quantifier.counts)
        except ValueError as error:
            self._fail(str(error))
        rules = size.rules * (high or max(low, 1))
        if rules >= EXPANDED_RULES_MAX:
            self._fail(f"{quantifier.text[:40]!r} expands to {rules} rules, not below {EXPANDED_RULES_MAX}")
        optional_copies = 1 if high is None else high - low
        self._generated += optional_copies
        self._add_elements((size.elements + 3) * (low + optional_copies))
        copies = item.copies * (low + optional_copies + (high is None))
        return Item(item.symbol, low == 0, copies), _Size(size.elements * low + 1, rules)


def parse_quantifier(text: str, counts: Sequence[str | None]) -> tuple[int, int | None]:
    """Parse `*`, `+`, `?`, `{m}`, `{m,}` or `{m,n}`.

    Args:
        text: the quantifier.
        counts: parts of one in braces: the digits of m, the comma with what follows it, the digits of n.

    Returns:
        Smallest and largest number of repetitions; None means without limit.

    Raises:
        ValueError: the bounds are out of order or exceed the limit.
    """
    if text in _QUANTIFIERS:
        return _QUANTIFIERS[text]
    first, comma, second = counts
    low = _parse_count(first or "")
    high = low if comma is None else None if second is None else _parse_count(second)
    if low > REPEATS_MAX or (high is not None and not max(low, 1) <= high <= REPEATS_MAX):
        raise ValueError(f"{text[:40]!r}: {{m,n}} needs m <= n and 1 <= n <= {REPEATS_MAX}")
    return low, high


def _parse_count(digits: str) -> int:
    return int(digits) if len(digits) <= 9 else REPEATS_MAX + 1


def _characters(text: str) -> list[tuple[str, int]]:
    """The characters of a literal or a set: each as written, and its code point."""
    characters, position = [], 0
    while position < len(text):
        match = _CHARACTER.match(text, position)
        if not match:
            raise ValueError(f"unknown escape {text[position : position + 2]!r}")
        *hexadecimal, escaped, plain = match.groups()
        digits = next(filter(None, hexadecimal), None)
        code_point = int(digits, 16) if digits else ord(plain or _ESCAPES.get(escaped, escaped))
        if code_point > CODE_POINT_MAX:
            raise ValueError(f"{match[0]} is not a code point")
        characters.append((match[0], code_point))
        position = match.end()
    return characters


def _count_literal(text: str) -> int:
    """Check a literal and return its number of elements."""
    code_points = [code_point for _, code_point in _characters(text[1:-1])]
    if any(point == 0 or SURROGATES[0] <= point <= SURROGATES[1] for point in code_points):
        raise ValueError("a literal cannot contain NUL or a lone surrogate")
    return len(code_points)


def _count_set(text: str) -> int:
    """Check a character set and return its number of elements."""
    negated = text.startswith("[^")
    characters = _characters(text[1 + negated : -1])
    ranges: list[tuple[int, int]] = []
    position = elements = 0
    while position < len(characters):
        dash_follows = characters[position + 1 : position + 2] == [("-", ord("-"))]
        is_range = dash_follows and position + 2 < len(characters)
        end = position + 2 if is_range else position
        ranges.append((characters[position][1], characters[end][1]))
        position, elements = end + 1, elements + 1 + is_range
    if any(low > high for low, high in ranges):
        raise ValueError("a range ends before it begins")
    if not ranges or _extent(ranges) == (CODE_POINT_MAX - 2048 if negated else 0):
        raise ValueError("the set matches no character")
    return elements


def _extent(ranges: list[tuple[int, int]]) -> int:
    """Count the code points in the ranges that a text can contain: neither NUL nor surrogates."""
    extent, position = 0, 1
    for first, high in sorted(ranges):
        low, position = max(first, position), max(high + 1, position)
        surrogates = min(position - 1, SURROGATES[1]) - max(low, SURROGATES[0]) + 1
        extent += max(position - low, 0) - max(surrogates, 0)
    return extent


_ELEMENT_COUNTERS = {"literal": _count_literal, "set": _count_set, "any": len, "name": len, "(": len}
