"""Made-up claims whose truth is known: none false may be marked right, none true wrong.

The oracle is the arithmetic of the parts that a claim is made of; it knows nothing of the grammar. A claim is
false or true in the sense of its words: "5 cm * 4 cm = 20 cm" is false, "9-5 = 8 hours" is true. In
templates,
`a`, `b` and `c` are small numbers, `s` their sum, `p` the product of `a` and `b`, `op` an operation
with the result `r` and `w` another number, `n` a noun, `u` and `v` two units.
"""

import random
from fractions import Fraction

from thirteen.runtime.arithmetic.final_answer import format_number


def _split(lines: str) -> list[str]:
    return [part for line in lines.strip("\n").split("\n") for part in line.split("|")]


NOUNS = _split("eggs|apples|books|cookies|pages|students|marbles|pencils|cards|oranges")
UNITS = _split("cm|km|kg|hours|minutes|miles|liters|feet|dollars|pounds")
STARTS = _split("||So |1. |Step 2: |\\[ |\\( |Total: |total = |Then, |- Tom has |**")
SUBJECTS = _split(
    "Tom has|Anna had|The farmer sold|She bought|Mr. Lee paid|My sister needs|They earned|Tom ate"
)
ENDS = ("", ".", ".\n", "\n", ". So that is it.", "; fine", "\n\nDone")

# After a result: another number, or none at all.
SCALES = [
    *("\ndozen", "\n+ 1", "\n\n\u00d7 2"),
    *_split("""
lakhs|crores|twelfths|fives|dozen|dozens|hundred|thousand|million|tens|halves|percent|gross|score|squared
fold|cubed|bn|k|M|pairs|thirds|billions|myriads|tenths|per cent|basis points|doubled|hundredths|sevens
\u00b0|\u2030|e3|!|\u00b2|x|^2|x 2|* 10|/ 2|plus 1|minus 1|times 2|and a half|1/2|\u00bd|000|,000|, 000
or 5|, 8, 9|more than 3|less than x|of 5|to 4|out of 9|: 1|% of 8|n|bakers' dozens|(in thousands)
(dozens)|-fold|-ish|th|ths|per n|in base 8|(mod 5)
"""),
]
# Before an expression: what belongs to it.
BEFORE = _split("""
10 take away|Ten minus|Twice|Half of|The sum of 5 apples, 6 pears, and|Double|10 less|The square root of
Add 5 to|Minus|The average of|1 + 2 + 3 ...|1 + 2 + \u2026 +|One hundred less|Ten,|The product of 5 and
5 more than|20% of|log|max|-|The sum of 5, 6,|Multiply 2 by|A dozen minus|Three times|The cube of|10 -
2 \u00d7|The opposite of|sqrt|100 divided by|A third of|\\sqrt|avg.|approx. twice
The difference between 20 and|7,|8; minus|10/|A dozen is|Ten equals|5 and 6 make|Half =|Ten =|10 =
5 boys =|Twice:|2 to the power of|10 minus the cost|Half the score|Seven|(10 -|3(|f(|x -|2x +|2^|a half
1/|$5 +|10 % of|The mean is:|5 *
""")
BASES = _split("""
In octal,|In base 8,|In hexadecimal,|Using base eight:|Working modulo 5,|On a clock,|With a radix of 8:
Mod 5 we get:|In octal arithmetic Tom has|We count in base 8.|Octal:|Numbers are octal here.
""")
AFTER_BASE = _split(" (mod 5)| in base 8|, in octal| mod 5| (octal)|_8|\u2088| o'clock| pm")
# Of texts that are no claims.
PIECES = (
    *_split(r"\text{|}|{|\(|\]|\[ |**|*|= |=|3 + 4|12|$5|\frac{1}{2}| eggs|.|, |so |Tom has |%|x|1,000|..."),
    *("1. ", "\n", "\n\n", "\n- ", "\r\n", "\u00a0", "\u2028", "\x1c", "\u00bd", "\u00b2", "\u00e9"),
    *_split(r"total = |Average: |- |(|)|8 * 2 = 16. |4^2|\\ |& |mod | gizmos|10 / 3 \approx 3.33|\boxed{7}"),
    *("is ", "\U0001f642 ", "-"),
)  # fmt: skip

FALSE = r"""
{a} {u} * {b} {u} = {p} {u}
{a} {u} + {b} {v} = {s} {u}
{a} {u} + {b} {v} = {s} {v}
{a} {u} * {b} {v} = {p} {u}
{a} minutes * ${b}/hour = ${p}
{a} oz * ${b}/lb = ${p}
${p} / ${b} = ${a}
{a} miles per hour + {b} miles = {s} miles
{p} {u} / {b} {u} = {a} {u}
{p} / {b} {u} = {a} {u}
{a} {u} + {b} {n} = {s} {u}
{a} {u}^2 + {b} {u} = {s} {u}
({a} {u})^2 = {aa} {u}
${a} * ${b} = ${p}
{a} {u} + {b} {u} = {s} {v}
${a} + €{b} = ${s}
${a} + {b} cents = ${s}
{a} {u}/{v} * {b} {u} = {p} {u}
{a} {u} each day * {b} weeks = {p} {u}
{a} dozen {n} + {b} {n} = {s} {n}
{a}% + {b} = {s}
{a}% + {b} = {s}%
{a}% * {b}% = {p}%
{a} m + {b} ms = {s} m
{a} caps + {b} capes = {s} caps
{a} feet {b} inches + 3 inches = {b3} inches
{a} hours and {b} minutes + 5 minutes = {b5} minutes
{a} squared + {b} squared = {s} squared
{a} - {b} - 2 = {ab2}
-{a}^2 = {aa}
{a} + {b} * 2 = {s2}
({a} + {b}) * 2 = {ab2p}
\sqrt{{{a} + {b} = {s}}}
\frac{{{p}}}{{{b}}} + 1 = {a}
{op} = {w}
{op} = {w} {n}
{op} = {r} = {w}
{op} = {w} = {r}
{op} = {r} = {w} - 0
2x = {op} = {w}
{op} = {r} ≈ {w}
{a}:{b} = {b}:{a}
The ratio 3: {op} = {r}
{a}{b} + 1 = {a}{b}1
1,{a:02} + 1 = 2,{a:02}
"""
TRUE = r"""
{x}-{y} = {span} hours
{x} {dash} {y} = {span} hours
{x} - {y} = {span} hours
He works {x}-{y} = {span} hours
15 minutes * ${a4} per hour = ${a}
${a} / 50 cents = {a2}
{a} hours * 60 = {a60} minutes
30 + 30 = 1 hour
{a12} + {b12} = {s} dozen
{a60} + {b60} = {s} hours
{a50} + {a50} = {a} dollars
{a50} + {a50} = ${a}
{a100} + {b100} = {s} m
{a12} + {b12} = {s} packs
{rest} / {c} = {a} remainder 1
{rest} / {c} = {a}, remainder 1
{rest} / {c} = {a} with 1 left
{rest} / {c} = {a} full boxes
{rest} / {c} = {a1} buses
10% + 20% = 28%
10 / 3 = 3.33
2 / 3 = 0.66...
1 / 3 = 33%
100 - 20% = 80
$50 - 50% = $25
{a}:{b} = {ac}:{bc}
{a} : {b} = {ac} : {bc}
the square root of {aa} + 0 = {a}
twice {a} + {b} = {s2}
half of {a} + {a} = {a}
The average of {a} + {a2p} = {a1}
20 take away {a} + {b} = {minus}
The sum of 5, 6, and {a} + {b} = {sum}
{a} dozen + {b} = {dozen}
{a} feet {b} inches + 12 inches = {a1} feet {b} inches
{a} ft + 12 in = {a1} ft
1.{a:03} + 1.000 = 2.{a:03}
1.000 + 500 = 1.500
10-20 = 11 pages
10 - 20 = 11 pages
20 - 10 = 11 pages
8 + 8 = 2 pizzas
{a} squared + {b} = {aab}
3! + {a} = {a6}
5 choose 2 + 1 = 11
{a} cm * {b} cm = {p} cm^2
{a6x} ÷ 2 {times} 3 = {a}
{op} = {r} + 5 = {r5}
199 * 3 ≈ 600
{a} km + {b1000} m = {s} km
2 + 2 = 4, 4 + 4 = 8
10 > 3 + 4 = 7
${a}.20 + 30¢ = ${a}.50
2 1/2 * 2 = 5
0,5 + 0,5 = 1
{a} m/s * 2 s = {a2} m
10 minus the cost {a} + {b} = {ten}
In octal, {h} + {k} = {octal}
In base 8, Tom has {h} + {k} = {octal} eggs
Mod 5: {h} + {k} = {five}
On a clock, 9 + {h} = {nine}
{h} + {k} = {octal} in base 8
{h} + {k} = {five} (mod 5)
In binary, 1 + 1 = 10
9 + {h} = {nine} o'clock
0x{h} + 0x8 = 0x{hex}
"""
PLAIN = r"""
{who} {op} = {r} {n}
{who} {op} = {r} {n} left
{who} {n} ({op} = {r})
{op} = {r}
{op} = {r} {u}
So {op} = {r}
{a} * ${b} = ${p}
{a} {n} + {b} {n} = {s} {n}
The total is {op} = {r}
Total: {op} = {r} {n}
Total cost = {a} {times} ${b} = ${p}
\[ {op} = {r} \]
\[ {a} \times {b} = {p} \]
\({a} + {b} = {s}\)
\[ {a} \text{{ {n}}} + {b} \text{{ {n}}} = {s} \text{{ {n}}} \]
\frac{{{p}}}{{{b}}} = {a}
{op} = **{r}**
Step 1: {op} = {r}
({a} + {b}) * 2 = {s2}
{a}% * 100 = {a}
${a}.50 + ${b}.50 = ${s1}
{a100:,} * 100 = {a10000:,}
{a} + {b} = {s} = {b} + {a}
"""


def draw_false(draw: random.Random) -> str:
    """A false claim."""
    names = _names(draw)
    text = "{op} = {r}".format(**names)
    kind = draw.choice(("template", "template", "scale", "before", "base", "after"))
    if kind == "scale":
        return (
            f"{_start(draw)}{text}{draw.choice((' ', ' ', '-', ''))}{draw.choice(SCALES)}{draw.choice(ENDS)}"
        )
    if kind == "before":
        lead = draw.choice(("", "", "So ", "In all, ", "Tom says: ", "We need this. "))
        return f"{lead}{draw.choice(BEFORE)}{draw.choice((' ', ': ', chr(10)))}{text}{draw.choice(ENDS)}"
    octal = "{h} + {k} = {hk}".format(**names)
    if kind == "base":
        return f"{draw.choice(BASES)}{draw.choice((' ', chr(10)))}{octal}{draw.choice(ENDS)}"
    if kind == "after":
        return f"{_start(draw)}{octal}{draw.choice(AFTER_BASE)}{draw.choice(ENDS)}"
    return _start(draw) + draw.choice(FALSE.strip().split("\n")).format(**names) + draw.choice(ENDS)


def draw_true(draw: random.Random) -> str:
    """A true claim, whether or not it is an equation."""
    template = draw.choice(TRUE.strip().split("\n"))
    return _start(draw) * (not template[0].isalpha()) + template.format(**_names(draw)) + draw.choice(ENDS)


def draw_plain(draw: random.Random) -> str:
    """A true equation without anything that could change it."""
    return draw.choice(PLAIN.strip().split("\n")).format(**_names(draw)) + draw.choice(ENDS)


def _start(draw: random.Random) -> str:
    """What may stand before an equation without changing it."""
    return draw.choice((*STARTS, f"{draw.choice(SUBJECTS)} "))


def _names(draw: random.Random) -> dict[str, object]:
    a, b, c = draw.sample(range(3, 30), 3)
    x, y, h, k = (draw.randint(*ends) for ends in ((6, 11), (1, 5), (4, 7), (4, 7)))
    u, v = draw.sample(UNITS, 2)
    first, second = draw.randint(2, 999), draw.choice((draw.randint(2, 12), draw.randint(2, 999)))
    sign = draw.choice("+-*/")
    names: dict[str, object]
    first *= second if sign == "/" else 1
    result = {"+": first + second, "-": first - second, "*": first * second, "/": first // second}[sign]
    if abs(result) < 2:
        return _names(draw)
    shown = draw.choice({"*": "*\u00d7x", "/": "/\u00f7", "-": "-\u2212"}.get(sign, sign))
    wrong = result + draw.choice((-10, -3, -2, -1, 1, 2, 3, 10, 100, Fraction(1, 2)))
    names = {"a": a, "b": b, "c": c, "s": a + b, "p": a * b, "u": u, "v": v, "n": draw.choice(NOUNS)}
    names |= {
        "op": f"{first} {shown} {second}",
        "r": result,
        "w": format_number(Fraction(wrong)),
        "r5": result + 5,
    }
    names |= {"aa": a * a, "b3": b + 3, "b5": b + 5, "ab2": a - b + 2, "s2": (a + b) * 2, "ab2p": a + b * 2}
    names |= {
        "dash": "\u2013",
        "times": "\u00d7",
        "x": x,
        "y": y,
        "span": y + 12 - x,
        "h": h,
        "k": k,
        "hk": h + k,
    }
    names |= {"octal": f"{h + k:o}", "five": (h + k) % 5, "nine": (h + 9) % 12, "hex": f"{h + 8:x}"}
    names |= {"rest": a * c + 1, "ac": a * c, "bc": b * c, "a1": a + 1, "a2p": a + 2, "minus": 20 - a - b}
    names |= {
        "sum": 11 + a + b,
        "dozen": 12 * a + b,
        "aab": a * a + b,
        "a6": a + 6,
        "a6x": a * 6,
        "ten": 10 - a + b,
    }
    names |= {"s1": a + b + 1, "who": draw.choice(SUBJECTS)}
    names |= {f"a{n}": a * n for n in (2, 4, 12, 50, 60, 100, 10000)}
    return names | {f"b{n}": b * n for n in (12, 60, 100, 1000)}
