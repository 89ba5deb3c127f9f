"""Regular expressions of JSON schemas as GBNF: those that are anchored, and a sequence without brackets.

They are ECMA-262's. One is refused whose characters could belong to its parts in several ways, as in `a*a*`:
llama.cpp follows all ways at once, and within one word of a vocabulary there may be millions.
"""

import re
from typing import NamedTuple

from .gbnf import POINT_MAX, REPEATS_MAX

LENGTH_MAX = 1000

Ranges = list[tuple[int, int]]  # of code points: the first and the last of each

_PART = re.compile(
    r"""(?:\[(?P<negated>\^?)(?P<set>[^]\\]*(?:\\.[^]\\]*)*)\] | (?P<any>\.) | (?P<plain>[^]\\[(){}*+?|^$.])
    | \\(?P<escape>u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.)) (?P<sign>[*+?]|\{([0-9]{1,4})(,([0-9]{1,4})?)?\})?""",
    re.VERBOSE | re.DOTALL,
)
_IN_SET = re.compile(r"\\(?P<escape>u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.)|(?P<plain>[^\\])", re.DOTALL)
_CLASSES: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [
        *((9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
        *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    ],
}
_LINE_ENDS: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
# What a JSON string holds as it is, and what behind a backslash; other control characters are left out.
_PLAIN: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE000, POINT_MAX)]
_ESCAPED = {'"': 0x22, "\\\\": 0x5C, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9}
_SIGNS: dict[str, tuple[int, int | None]] = {"": (1, 1), "*": (0, None), "+": (1, None), "?": (0, 1)}


class _Part(NamedTuple):
    ranges: Ranges
    least: int
    most: int | None


def pattern_gbnf(pattern: str) -> str:
    """The GBNF of what a JSON string has between its quotes if it matches the pattern.

    Raises:
        ValueError: the pattern is wrong, or is not one that can be enforced.
    """
    if len(pattern) > LENGTH_MAX:
        raise ValueError(f"it has {len(pattern)} characters, more than {LENGTH_MAX}")
    if len(pattern) < 2 or not (pattern.startswith("^") and pattern.endswith("$")):
        raise ValueError("it does not begin with ^ and end with $")
    parts, place, end = [], 1, len(pattern) - 1
    while place < end:
        match = _PART.match(pattern, place, end)
        if not match:
            raise ValueError(f"{pattern[place : place + 10]!r} is more than characters and their repetition")
        parts.append(_Part(_ranges(match), *_times(match)))
        place = match.end()
    _check_ends(parts)
    return " ".join(map(_written, parts)) or '""'


def _times(match: re.Match[str]) -> tuple[int, int | None]:
    sign, (low, comma, high) = match["sign"] or "", match.groups()[-3:]
    least, most = _SIGNS.get(sign) or (int(low), int(high) if high else None if comma else int(low))
    if least > REPEATS_MAX or (most is not None and not max(least, 1) <= most <= REPEATS_MAX):
        raise ValueError(f"{sign}: from m to n times needs m <= n and 1 <= n <= {REPEATS_MAX}")
    return least, most


def _ranges(match: re.Match[str]) -> Ranges:
    """The characters that a part takes."""
    if match["any"]:
        return _others(_LINE_ENDS)
    if match["escape"]:
        return _escape(match["escape"])
    if match["plain"]:
        return [(ord(match["plain"]),) * 2]
    found = _set(match["set"])
    return _others(found) if match["negated"] else found


def _escape(escape: str) -> Ranges:
    if (kind := escape.lower()) in _CLASSES:
        return _CLASSES[kind] if kind == escape else _others(_CLASSES[kind])
    if len(escape) > 1:
        return [(int(escape[1:], 16),) * 2]
    if escape.isascii() and escape.isalnum() and escape not in _CONTROLS:
        raise ValueError(f"\\{escape} is none of the escapes that can be enforced")
    return [(_CONTROLS.get(escape, ord(escape)),) * 2]


def _set(text: str) -> Ranges:
    matches = list(_IN_SET.finditer(text))
    items = [
        _escape(match["escape"]) if match["escape"] else [(ord(match["plain"]),) * 2] for match in matches
    ]
    found: Ranges = []
    place = 0
    while place < len(items):
        ends = items[place : place + 3 : 2]
        if len(ends) == 2 and matches[place + 1][0] == "-":
            (low, first_end), (last_start, high) = ends[0][0], ends[1][-1]
            if [low, last_start] != [first_end, high] or max(map(len, ends)) > 1 or low > high:
                raise ValueError(f"[{text[:20]}] holds a range that is none")
            found.append((low, high))
            place += 3
        else:
            found += items[place]
            place += 1
    if not found:
        raise ValueError("[] takes no character")
    return found


def _others(ranges: Ranges) -> Ranges:
    """The characters that are not in the ranges."""
    found, place = [], 0
    for low, high in sorted(ranges):
        if low > place:
            found.append((place, low - 1))
        place = max(place, high + 1)
    return [*found, (place, POINT_MAX)] if place <= POINT_MAX else found


def _common(some: Ranges, others: Ranges) -> Ranges:
    pairs = ((max(a, c), min(b, d)) for a, b in some for c, d in others)
    return [(low, high) for low, high in pairs if low <= high]


def _check_ends(parts: list[_Part]) -> None:
    """See that a character tells whether a part goes on or which one begins."""
    for index, part in enumerate(parts):
        if part.least == part.most:
            continue
        for follower in parts[index + 1 :]:
            if _common(part.ranges, follower.ranges):
                raise ValueError("a character could belong to either of two parts")
            if follower.least:
                break


def _written(part: _Part) -> str:
    """A part as it stands in a JSON string."""
    plain = "".join(f"\\U{low:08X}-\\U{high:08X}" for low, high in sorted(_common(part.ranges, _PLAIN)))
    escaped = "".join(sign for sign, point in _ESCAPED.items() if _common(part.ranges, [(point, point)]))
    ways = [f"[{plain}]"] * bool(plain) + [f'"\\\\" [{escaped}]'] * bool(escaped)
    if not ways:
        raise ValueError("no character fits one of its parts")
    most = "" if part.most is None else part.most
    return f"({' | '.join(ways)}){{{part.least},{most}}}"
