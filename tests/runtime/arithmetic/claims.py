"""Made-up claims whose truth is known: none false may be marked right, none true wrong.

The oracle is the arithmetic of the parts that a claim is made of; it knows nothing of the grammar. A claim is
false or true in the sense of its words: "5 cm * 4 cm = 20 cm" is false, "9-5 = 8 hours" is true. The parts
are in tests/data/claims.json: `scales` follow a result, which they make another number or none; `before`
stands before an expression and belongs to it. In templates, `a`, `b` and `c` are small numbers, `s` their
sum, `p` the product of `a` and `b`, `op` an operation with the result `r` and `w` another number, `n` a noun,
`u` and `v` two units.
"""

import json
import random
from fractions import Fraction
from pathlib import Path

from thirteen.runtime.arithmetic.final_answer import format_number

_PARTS: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[2] / "data" / "claims.json").read_text("utf-8")
)


def draw_false(draw: random.Random) -> str:
    """A false claim."""
    names, end = _names(draw), _part(draw, "ends")
    text, octal = "{op} = {r}".format(**names), "{h} + {k} = {hk}".format(**names)
    kind = draw.choice(("template", "template", "scale", "before", "base", "after"))
    if kind == "scale":
        return f"{_start(draw)}{text}{draw.choice((' ', ' ', '-', ''))}{_part(draw, 'scales')}{end}"
    if kind == "before":
        lead = draw.choice(("", "", "So ", "In all, ", "Tom says: ", "We need this. "))
        return f"{lead}{_part(draw, 'before')}{draw.choice((' ', ': ', chr(10)))}{text}{end}"
    if kind == "base":
        return f"{_part(draw, 'bases')}{draw.choice((' ', chr(10)))}{octal}{end}"
    if kind == "after":
        return f"{_start(draw)}{octal}{_part(draw, 'after_base')}{end}"
    return _start(draw) + _part(draw, "false").format(**names) + end


def draw_true(draw: random.Random) -> str:
    """A true claim, whether or not it is an equation."""
    text = _part(draw, "true")
    return f"{_start(draw) * (not text[0].isalpha())}{text.format(**_names(draw))}{_part(draw, 'ends')}"


def draw_plain(draw: random.Random) -> str:
    """A true equation without anything that could change it."""
    return _part(draw, "plain").format(**_names(draw)) + _part(draw, "ends")


def _part(draw: random.Random, name: str) -> str:
    return draw.choice(_PARTS[name])


def _start(draw: random.Random) -> str:
    """What may stand before an equation without changing it."""
    return draw.choice((*_PARTS["starts"], f"{_part(draw, 'subjects')} "))


def _names(draw: random.Random) -> dict[str, object]:
    a, b, c = draw.sample(range(3, 30), 3)
    x, y, h, k = (draw.randint(*ends) for ends in ((6, 11), (1, 5), (4, 7), (4, 7)))
    u, v = draw.sample(_PARTS["units"], 2)
    first, second = draw.randint(2, 999), draw.choice((draw.randint(2, 12), draw.randint(2, 999)))
    sign = draw.choice("+-*/")
    first *= second if sign == "/" else 1
    result = {"+": first + second, "-": first - second, "*": first * second, "/": first // second}[sign]
    if abs(result) < 2:
        return _names(draw)
    shown = draw.choice({"*": "*\u00d7x", "/": "/\u00f7", "-": "-\u2212"}.get(sign, sign))
    wrong = result + draw.choice((-10, -3, -2, -1, 1, 2, 3, 10, 100, Fraction(1, 2)))
    return {
        **{"a": a, "b": b, "c": c, "s": a + b, "p": a * b, "u": u, "v": v, "n": _part(draw, "nouns")},
        **{"op": f"{first} {shown} {second}", "r": result, "w": format_number(Fraction(wrong))},
        **{"r5": result + 5, "aa": a * a, "b3": b + 3, "b5": b + 5, "ab2": a - b + 2, "s2": (a + b) * 2},
        **{"ab2p": a + b * 2, "dash": "\u2013", "times": "\u00d7", "x": x, "y": y, "span": y + 12 - x},
        **{"h": h, "k": k, "hk": h + k, "octal": f"{h + k:o}", "five": (h + k) % 5, "nine": (h + 9) % 12},
        **{"hex": f"{h + 8:x}", "rest": a * c + 1, "ac": a * c, "bc": b * c, "a1": a + 1, "a2p": a + 2},
        **{"minus": 20 - a - b, "sum": 11 + a + b, "dozen": 12 * a + b, "aab": a * a + b, "a6": a + 6},
        **{"scale": _part(draw, "scales_as_nouns"), "xy": x - y, "b2": b + 2},
        **{"a6x": a * 6, "ten": 10 - a + b, "s1": a + b + 1, "who": _part(draw, "subjects")},
        **{f"a{n}": a * n for n in (2, 4, 12, 50, 60, 100, 10000)},
        **{f"b{n}": b * n for n in (12, 60, 100, 1000)},
    }
