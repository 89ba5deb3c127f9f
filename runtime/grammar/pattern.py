"""JSON Schema's keyword `pattern` as GBNF: anchored ECMA-262 regular expressions without groups.

A pattern whose parts can match the same character, such as `a*a*`, is refused as ambiguous: llama.cpp follows
all parses at once, and within one token of a vocabulary there may be millions.
"""

import re
from typing import NamedTuple

from .gbnf_parser import CODE_POINT_MAX, parse_quantifier

LENGTH_MAX = 1000

Ranges = list[tuple[int, int]]  # first and last code point of each range

_PART = re.compile(
    r"""(?:\[(?P<negated>\^?)(?P<set>[^]\\]*(?:\\.[^]\\]*)*)\] | (?P<any>\.) | (?P<plain>[^]\\[(){}*+?|^$.])
    | \\(?P<escape>u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.))
    (?P<quantifier>[*+?]|\{([0-9]{1,4})(,([0-9]{1,4})?)?\})?""",
    re.VERBOSE | re.DOTALL,
)
_SET_MEMBER = re.compile(r"\\(?P<escape>u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.)|(?P<plain>[^\\])", re.DOTALL)
_CLASS_ESCAPES: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [
        *((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
        *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    ],
}
_LINE_TERMINATORS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]
_CONTROL_ESCAPES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
# Characters that stand for themselves in a JSON string, and those after a backslash. Other control characters
# are left out.
_JSON_PLAIN: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, CODE_POINT_MAX)]
_JSON_ESCAPES = {'"': 0x22, "\\\\": 0x5C, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9}


class _Part(NamedTuple):
    """A set of characters and its repetition; a `high` of None means without limit."""

    ranges: Ranges
    low: int
    high: int | None


def pattern_to_gbnf(pattern: str) -> str:
    """Convert a pattern to the GBNF of the text between the quotes of a matching JSON string.

    Raises:
        ValueError: the pattern is malformed or not supported.
    """
    if len(pattern) > LENGTH_MAX:
        raise ValueError(f"{len(pattern)} characters are more than {LENGTH_MAX}")
    if len(pattern) < 2 or not (pattern.startswith("^") and pattern.endswith("$")):
        raise ValueError("it must begin with ^ and end with $")
    parts, position, end = [], 1, len(pattern) - 1
    while position < end:
        match = _PART.match(pattern, position, end)
        if not match:
            raise ValueError(f"{pattern[position : position + 10]!r} is no character, set or quantifier")
        quantifier, counts = match["quantifier"], match.groups()[-3:]
        bounds = parse_quantifier(quantifier, counts) if quantifier else (1, 1)
        parts.append(_Part(_part_ranges(match), *bounds))
        position = match.end()
    _check_unambiguous(parts)
    return " ".join(map(_part_gbnf, parts)) or '""'


def _part_ranges(match: re.Match[str]) -> Ranges:
    if match["any"]:
        return _complement(_LINE_TERMINATORS)
    if match["escape"]:
        return _escape_ranges(match["escape"])
    if match["plain"]:
        return _single(ord(match["plain"]))
    ranges = _set_ranges(match["set"])
    return _complement(ranges) if match["negated"] else ranges


def _escape_ranges(escape: str) -> Ranges:
    if (name := escape.lower()) in _CLASS_ESCAPES:
        return _CLASS_ESCAPES[name] if name == escape else _complement(_CLASS_ESCAPES[name])
    if len(escape) > 1:
        return _single(int(escape[1:], 16))
    if escape.isascii() and escape.isalnum() and escape not in _CONTROL_ESCAPES:
        raise ValueError(f"the escape \\{escape} is not supported")
    return _single(_CONTROL_ESCAPES.get(escape, ord(escape)))


def _set_ranges(text: str) -> Ranges:
    matches = list(_SET_MEMBER.finditer(text))
    members = [_escape_ranges(m["escape"]) if m["escape"] else _single(ord(m["plain"])) for m in matches]
    ranges: Ranges = []
    position = 0
    while position < len(members):
        ends = members[position : position + 3 : 2]
        if len(ends) == 2 and matches[position + 1][0] == "-":
            (low, first_end), (last_start, high) = ends[0][0], ends[1][-1]
            if [low, last_start] != [first_end, high] or max(map(len, ends)) > 1 or low > high:
                raise ValueError(f"[{text[:20]}] contains an invalid range")
            ranges.append((low, high))
            position += 3
        else:
            ranges += members[position]
            position += 1
    if not ranges:
        raise ValueError("[] matches no character")
    return ranges


def _single(code_point: int) -> Ranges:
    return [(code_point, code_point)]


def _complement(ranges: Ranges) -> Ranges:
    complement, position = [], 0
    for low, high in sorted(ranges):
        if low > position:
            complement.append((position, low - 1))
        position = max(position, high + 1)
    return [*complement, (position, CODE_POINT_MAX)] if position <= CODE_POINT_MAX else complement


def _intersect(left: Ranges, right: Ranges) -> Ranges:
    pairs = ((max(a, c), min(b, d)) for a, b in left for c, d in right)
    return [(low, high) for low, high in pairs if low <= high]


def _check_unambiguous(parts: list[_Part]) -> None:
    """Check that the next character decides whether a part repeats and which part comes next."""
    for index, part in enumerate(parts):
        if part.low == part.high:
            continue
        for follower in parts[index + 1 :]:
            if _intersect(part.ranges, follower.ranges):
                raise ValueError("it is ambiguous: two parts match the same character")
            if follower.low:
                break


def _part_gbnf(part: _Part) -> str:
    """Write a part as its characters appear in a JSON string."""
    plain = "".join(f"\\U{a:08X}-\\U{b:08X}" for a, b in sorted(_intersect(part.ranges, _JSON_PLAIN)))
    escapes = "".join(c for c, point in _JSON_ESCAPES.items() if _intersect(part.ranges, _single(point)))
    alternatives = [f"[{plain}]"] * bool(plain) + [f'"\\\\" [{escapes}]'] * bool(escapes)
    if not alternatives:
        raise ValueError("one of its parts matches no character")
    high = "" if part.high is None else part.high
    return f"({' | '.join(alternatives)}){{{part.low},{high}}}"
