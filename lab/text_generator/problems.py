"""Templates of word problems with worked solutions: money, time, geometry, algebra, fractions, tables and more.

Each has a generator of its numbers. `{a}` and the like are numbers; the other fields are words, see fields.py.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

Numbers = Mapping[str, object]


@dataclass(frozen=True)
class Problem:
    """A template of a question and of its solution, and a generator of the numbers in both."""

    numbers: Callable[[random.Random], Numbers]
    question: str
    solution: str


def _two(rng: random.Random) -> Numbers:
    a, b = rng.randint(2, 60), rng.randint(2, 40)
    return {"a": a + b, "b": b, "c": a, "sum": a + 2 * b, "product": (a + b) * b, "e": rng.randint(2, 9)}


def _price(rng: random.Random) -> Numbers:
    a, cents = rng.randint(2, 12), rng.randint(50, 1999)
    total = a * cents
    given = math.ceil(total / 500 + 1) * 5
    money = {"price": cents / 100, "total": total / 100, "change": given - total / 100}
    texts = {key: f"{value:,.2f}" for key, value in money.items()}
    return {"a": a, "given": given, **texts, "big": f"{rng.randint(1000, 99_999):,}"}


def _percent(rng: random.Random) -> Numbers:
    percent, price = rng.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75)), rng.randint(2, 60) * 20
    part = percent * price // 100
    return {
        "p": percent,
        "a": price,
        "part": part,
        "less": price - part,
        "more": price + part,
        "d": percent / 100,
    }


def _trip(rng: random.Random) -> Numbers:
    speed, hours = rng.randint(3, 90), rng.randint(2, 9)
    start = rng.randint(1, 11 - hours)
    return {
        "v": speed, "t": hours, "s": speed * hours, "from": start, "to": start + hours,
        "m": rng.choice((5, 10, 15, 20, 30, 45)), "min": hours * 60,
    }  # fmt: skip


def _rectangle(rng: random.Random) -> Numbers:
    a, b, h = rng.randint(3, 40), rng.randint(2, 30), rng.randint(2, 20)
    return {"a": a, "b": b, "h": h, "area": a * b, "around": 2 * (a + b), "volume": a * b * h, "s": a + b}


def _circle(rng: random.Random) -> Numbers:
    r = rng.randint(2, 25)
    return {"r": r, "d": 2 * r, "r2": r * r, "area": f"{3.14 * r * r:.2f}", "round": f"{6.28 * r:.2f}"}


def _right_triangle(rng: random.Random) -> Numbers:
    (a, b, c), k = rng.choice(((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25))), rng.randint(1, 6)
    a, b, c = a * k, b * k, c * k
    return {"a": a, "b": b, "c": c, "a2": a * a, "b2": b * b, "c2": c * c, "area": a * b // 2}


def _linear(rng: random.Random) -> Numbers:
    x, m, b = rng.randint(-9, 25), rng.randint(2, 12), rng.randint(1, 40)
    letter = rng.choice("xyznabcdkmpt")
    return {
        "x": x,
        "m": m,
        "b": b,
        "y": m * x + b,
        "mx": m * x,
        "l": letter,
        "L": letter.upper(),
        "m1": m + 1,
    }


def _quadratic(rng: random.Random) -> Numbers:
    p, q = rng.randint(1, 9), rng.randint(1, 9)
    return {"p": p, "q": q, "sum": p + q, "product": p * q, "d": (p - q) ** 2, "root": abs(p - q)}


def _fractions(rng: random.Random) -> Numbers:
    b, d = rng.randint(2, 12), rng.randint(2, 12)
    a, c = rng.randint(1, b - 1), rng.randint(1, d - 1)
    total, product = Fraction(a, b) + Fraction(c, d), Fraction(a, b) * Fraction(c, d)
    return {
        "a": a, "b": b, "c": c, "d": d, "common": math.lcm(b, d), "left": a * math.lcm(b, d) // b,
        "right": c * math.lcm(b, d) // d, "n": total.numerator, "e": total.denominator,
        "pn": product.numerator, "pe": product.denominator, "whole": b * d * rng.randint(1, 4),
    }  # fmt: skip


def _part_of(rng: random.Random) -> Numbers:
    b = rng.randint(2, 10)
    a, each = rng.randint(1, b - 1), rng.randint(2, 30)
    names = ("half", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    return {
        "a": a, "b": b, "total": b * each, "part": a * each, "rest": (b - a) * each, "each": each,
        "ord": names[b - 2], "Ord": names[b - 2].capitalize(), "x": rng.randint(2, 9),
    }  # fmt: skip


def _average(rng: random.Random) -> Numbers:
    mean, c, d = rng.randint(40, 95), rng.randint(1, 9), rng.randint(1, 9)
    values = (mean - c, mean + d, mean + c - d)
    return {"x": values[0], "y": values[1], "z": values[2], "total": 3 * mean, "mean": mean, "n": 3}


def _table(rng: random.Random) -> Numbers:
    counts = [rng.randint(2, 99) for _ in range(4)]
    return {"w": counts[0], "x": counts[1], "y": counts[2], "z": counts[3], "total": sum(counts)}


def _ratio(rng: random.Random) -> Numbers:
    a, b, k = rng.randint(1, 9), rng.randint(1, 9), rng.randint(2, 20)
    return {"a": a, "b": b, "n": a + b, "k": k, "total": k * (a + b), "x": a * k, "y": b * k}


def _powers(rng: random.Random) -> Numbers:
    base, n = rng.randint(2, 5), rng.randint(2, 5)
    return {
        "a": base,
        "n": n,
        "m": n + 1,
        "value": base**n,
        "next": base ** (n + 1),
        "root": base,
        "sq": base * base,
    }


PROBLEMS = (
    Problem(_two, "{Name} has {a} {things} and gives {b} of them to {person} {name2}. How many {things} does {Name} have left?",
            "{Name} has {a} - {b} = {c} {things} left.\n#### {c}"),
    Problem(_two, "There are {a} {things} in the {thing2}. {Name} puts {b} more {things} there. How many {things} are in the {thing2} now?",
            "There are {a}+{b}={sum} {things} in the {thing2} now.\nThe answer is {sum}."),
    Problem(_two, "{Name}'s {thing2} holds {a} {adj} {things}. If {name2} buys {b} such {thing2}, how many {things} are there altogether?",
            "Each {thing2} holds {a} {things}, so {b} of them hold {b}*{a} = <<{b}*{a}={product}>>{product} {things}."),
    Problem(_two, "A {person} packs {product} {things} into boxes of {b}. How many boxes does the {person} need?",
            "Divide the total by the number per box: {product} / {b} = {a} boxes.\n\nAnswer: **{a}**"),
    Problem(_two, "On {Adverb} morning, {Name} {verbed} {a} {things}; in the afternoon {name2} {verbed2} {b} {things2}. How many did they {verb} in total?",
            "Together, {Name} and {name2} {verbed} {a} + {b} = ${sum}$ {things}."),
    Problem(_two, "{Name} is {b} years old. Her {person} is {c} years older than she is. How old will her {person} be in {e} years?",
            "Her {person} is {b} + {c} = {a} years old.\nIn {e} years, her {person} will be {a} + {e} years old."),
    Problem(_two, "{Things} come in packs of {b}. {Name} {surname} needs {product} {things} for the {thing2}-{thing3} {idea}. How many packs should he buy?",
            "He needs {product}/{b} = {a} packs of {things}."),
    Problem(_price, "Each {thing} costs ${price}. {Name} buys {a} {things} and pays with ${given}. How much change does {Name} get?",
            "The {things} cost {a} x ${price} = ${total}.\n{Name} gets ${given} - ${total} = ${change} back.\n#### {change}"),
    Problem(_price, "A {adj} {thing} is £{price} at the {thing2} shop in {place}. What do {a} of them cost?",
            "{a} × £{price} = £{total}, so the {things} cost £{total} in all."),
    Problem(_price, "{Mass} costs €{price} per {unit}. How much are {a} {units} of {mass2}?",
            "At €{price}/{unit}, {a} {units} cost {a} · €{price} = €{total}."),
    Problem(_price, "{Name} earns ${price} an hour as a {person}. How much does {name} make in {a} hours?",
            "{Name} makes ${price}/hour * {a} hours = ${total}.\nTherefore, {Name} earns ${total}."),
    Problem(_price, "The {person} sold {big} {things} last year at ${price}/{thing}. {Name} sold {a}% more. Who sold more {things}?",
            "Since {a}% more than {big} is more than {big}, {Name} sold more {things}."),
    Problem(_percent, "A {thing} that costs ${a} is on sale for {p}% off. What is the sale price?",
            "The discount is {p}% of ${a}: {d} * {a} = ${part}.\nSo the {thing} costs {a} - {part} = ${less}.\n#### {less}"),
    Problem(_percent, "{Name} deposits ${a} in a bank at {p}% interest per year. How much is in the account after one year?",
            "1. The interest is ${a} × {d} = ${part}.\n2. The total is ${a} + ${part} = ${more}.\n\n**Answer:** ${more}"),
    Problem(_percent, "{p} percent of the {a} {persons} at the {place} {thing} {verb} {things}. How many do not?",
            "\\[ {a} \\times \\frac{{{p}}}{{100}} = {part} \\]\nThus \\({a} - {part} = {less}\\) {persons} do not {verb} {things}. \\(\\boxed{{{less}}}\\)"),
    Problem(_percent, "The {idea} of a {thing} rose by {p} % from {a} to what value?",
            "Step 1: {p} % of {a} is {part}.\nStep 2: {a} + {part} = {more}.\nFinal answer: {more}"),
    Problem(_trip, "A {thing} travels at {v} miles per hour for {t} hours. How far does it go?",
            "Distance = speed × time = {v} mph × {t} hours = {s} miles."),
    Problem(_trip, "{Name} drives {s} km from {place} to {place2} in {t} hours. What is the average speed in km/h?",
            "\\text{{speed}} = \\frac{{\\text{{distance}}}}{{\\text{{time}}}} = \\frac{{{s}}}{{{t}}} = {v} \\text{{ km/h}}"),
    Problem(_trip, "{Name} starts to {verb} at {from}:{m} a.m. and stops at {to}:{m} p.m. the same {unit}. How long is that?",
            "From {from}:{m} AM to {to}:{m} PM is {t} hours plus 12 hours."),
    Problem(_trip, "How many minutes are {t} hours? How many {units} does a {v}-{unit} {thing} need?",
            "There are 60 minutes in an hour, so {t} hours = {t} * 60 = {min} minutes."),
    Problem(_rectangle, "A rectangular {thing} is {a} feet long and {b} feet wide. Find its area and its perimeter.",
            "Area = length × width = {a} × {b} = {area} square feet.\nPerimeter = 2({a} + {b}) = 2 * {s} = {around} feet."),
    Problem(_rectangle, "A {thing} measures {a} cm by {b} cm by {h} cm. What is its volume?",
            "$$V = l \\cdot w \\cdot h = {a} \\cdot {b} \\cdot {h} = {volume} \\text{{ cm}}^3$$\n\nSo the volume is $\\boxed{{{volume}}}$ cm³."),
    Problem(_circle, "The radius of a circular {thing} is {r} inches. What are its diameter, circumference and area? Use π ≈ 3.14.",
            "- Diameter: 2r = 2({r}) = {d} in\n- Circumference: 2πr = {round} in\n- Area: πr² = π × {r}² = 3.14 × {r2} = {area} in²"),
    Problem(_right_triangle, "In a right triangle ABC with ∠C = 90°, the legs are {a} and {b}. Find the hypotenuse.",
            "By the Pythagorean theorem, $c^2 = a^2 + b^2 = {a2} + {b2} = {c2}$, so $c = \\sqrt{{{c2}}} = {c}$.\n\n$\\boxed{{{c}}}$"),
    Problem(_right_triangle, "A {c}-foot ladder leans against a wall, {a} feet from its base. How high does it reach?",
            "Let h be the height. Then h^2 = {c}^2 - {a}^2 = {c2} - {a2} = {b2}, which gives h = {b} feet."),
    Problem(_linear, "Solve for ${l}$: ${m}{l} + {b} = {y}$.",
            "Subtract {b} from both sides:\n\\[{m}{l} = {y} - {b} = {mx}\\]\nDivide by {m}:\n\\[{l} = \\frac{{{mx}}}{{{m}}} = {x}\\]\nHence \\(\\boxed{{{x}}}\\)."),
    Problem(_linear, "{m} times a number plus {b} is {y}. What is the number?",
            "Let {l} be the number. Then {m}*{l}+{b}={y}, so {m}{l}={mx} and {l}={mx}/{m}={x}."),
    Problem(_linear, "If f({l}) = {m}{l} + {b}, find f({x}) and the slope of the line.",
            "f({x}) = {m}({x}) + {b} = {mx} + {b} = {y}. The slope is {m}, and the y-intercept is (0, {b})."),
    Problem(_linear, "Let {L} be the number of {things} {Name} {verbs}. {name2} {verbs} {m} times as many. Together they {verb2} {m1}{L} {things}. Express this as an equation.",
            "{Name}: {L}\n{name2}: {m}{L}\nTotal: {L} + {m}{L} = {m1}{L}"),
    Problem(_quadratic, "Find the roots of $x^2 - {sum}x + {product} = 0$.",
            "Factoring, $(x - {p})(x - {q}) = 0$, so $x = {p}$ or $x = {q}$.\nIndeed, $x = \\frac{{{sum} \\pm \\sqrt{{{d}}}}}{{2}}$ with $\\sqrt{{{d}}} = {root}$."),
    Problem(_fractions, "What is {a}/{b} + {c}/{d}?",
            "The common denominator is {common}: {a}/{b} = {left}/{common}; {c}/{d} = {right}/{common}.\nThe sum is {n}/{e}."),
    Problem(_fractions, "Compute \\(\\frac{{{a}}}{{{b}}} \\times \\frac{{{c}}}{{{d}}}\\).",
            "\\begin{{align*}}\n\\frac{{{a}}}{{{b}}} \\cdot \\frac{{{c}}}{{{d}}} &= \\frac{{{a} \\cdot {c}}}{{{b} \\cdot {d}}} \\\\\n&= \\frac{{{pn}}}{{{pe}}}.\n\\end{{align*}}\n\\[\\boxed{{\\dfrac{{{pn}}}{{{pe}}}}}\\]"),
    Problem(_part_of, "{Name} eats {a}/{b} of {total} {things}. How many {things} remain?",
            "{Name} eats {total} * {a}/{b} = {part} {things}.\nThere are {total}-{part}={rest} {things} left."),
    Problem(_part_of, "One-{ord} of the {total} {persons} in a {thing} {verb}, and the rest {verb2}. How many {verb}?",
            "{Ord} of {total} is {total}/{b}={each} {persons}. The remaining {persons} {verb2}."),
    Problem(_part_of, "A {thing} needs {a} {units} of {mass} for every {b} {units2} of {mass2}. How much {mass} goes with {total} {units2}?",
            "There are {total} / {b} = {each} parts.\nThis takes {a} × {each} = {part} {units} of {mass}."),
    Problem(_part_of, "{Name} {verbs} {each} {things} each {unit}. {name2} {verbs} half as many, and {name3} {x} times as many. How many {things} is that per {unit}?",
            "Half of {each} is {each}/2. {name3} {verbs} {x}*{each} {things}.\nAdd the three numbers: {each}+{each}/2+{x}*{each}."),
    Problem(_average, "{Name} scored {x}, {y} and {z} points in three {idea} {things}. What is the average?",
            "Total: {x} + {y} + {z} = {total}.\nAverage: {total} ÷ {n} = {mean} points."),
    Problem(_table, "| {Thing} | {Persons} |\n| --- | ---: |\n| {thing2} | {w} |\n| {thing3} | {x} |\n| {thing4} | {y} |\n| {adj} {thing5} | {z} |\n\nHow many {persons} are there in the table?",
            "Adding the column: {w} + {x} + {y} + {z} = {total}.\n\n| total | {total} |"),
    Problem(_table, "{Name} counted {w} {things}, {x} {things2}, {y} {things3} and {z} {adj} {things4}. How many in all?",
            "First, {w}+{x}. Then add {y} and {z}.\nAltogether: {total}."),
    Problem(_ratio, "The ratio of {things} to {things2} is {a}:{b}. There are {total} in total. How many {things2} are there?",
            "Combined, there are {a} + {b} = {n} parts, and each part is {total}/{n} = {k}.\nThat means {b} × {k} = {y} {things2}.\n#### {y}"),
    Problem(_ratio, "A {adj} {thing} has {n} {adj2} {things}, of which {a} are {adj3}. What is the probability of drawing one that is not {adj3}?",
            "P = \\dfrac{{{b}}}{{{n}}}, because {n} - {a} = {b}."),
    Problem(_powers, "Simplify ${a}^{{{n}}} \\cdot {a}$ and evaluate it. What is \\sqrt{{{sq}}}?",
            "$${a}^{{{n}}} \\cdot {a}^1 = {a}^{{{n}+1}} = {a}^{{{m}}} = {next}$$ and $\\sqrt{{{sq}}} = {root}$; also {a}**{n} = {value}."),
)  # fmt: skip
