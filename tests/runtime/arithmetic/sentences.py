"""Random sentences around sums, with every value that a reader may give to both sides of the equation.

The oracle is Python's arithmetic on the parts that a sentence is made of; it knows nothing of the parser.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from thirteen.runtime.arithmetic.calculator import check_relations, pending_result
from thirteen.runtime.arithmetic.final_answer import format_number

Choose = Callable[[Sequence[Any]], Any]
Values = set[Fraction | None]  # None: a reader may find no value there

NUMBERS = ("1", "2", "3", "4", "5", "6", "8", "10", "12", "15", "20", "25", "50", "60", "100", "0.5", "2.5")
SIGNS = {"+": "+", "-": "-", "*": "*", "/": "/", "x": "*", "\u00d7": "*", "\u00f7": "/", "\u2212": "-"}
OPERATORS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/", "multiplied by": "*", "less": "-"}
# Before a sum: without effect, a first operand with an operator, a factor, and what is beyond the oracle.
HARMLESS = (
    "", "So ", "She has ", "There are ", "It costs ", "Total: ", "We get\n", "He sold ", "1. ",
    "Then, ", "What she began with: ", "First fold:\n", "He shared ",
)  # fmt: skip
NUMERALS = {"Two": 2, "Ten": 10, "Twenty": 20, "One hundred": 100, "A dozen": 12, "30": 30, "4 apples": 4}
FACTORS = {"double": 2, "Twice": 2, "half of": "1/2", "a third of": "1/3", "triple": 3, "a seventh of": "1/7"}
FACTORS |= {"quadruple": 4, "minus": -1, "-": -1, "\u2013": -1, "negative": -1, "Two thirds of": "2/3"}
UNKNOWN = (
    "The average of", "max", "Zorble", "sqrt", "f", "the square of", "Multiply 5 by", "5 more than",
    "The sum of 5,", "The product of 3 and", "It is not", "Divide by", "log", "x", "the cube of", "vs.",
    "Add it to:\n", "Ten goes with:\n",
)  # fmt: skip
# After a result: without effect, a factor, an operand, and what is beyond the oracle.
ENDS = ("", ".", ", so it is done.", "\n", " because she says so.", " left.", " for Tom.", "; fine")
SCALES = {
    " dozen": 12, " hundred": 100, " million": 10**6, " doubled": 2, " halved": "1/2", " twice": 2,
    " tens": 10,
}  # fmt: skip
ADDED = {
    ", and 3 more": 3, ", and 1/2": "1/2", " and a half": "1/2", " and three": 3, " and 1/2": "1/2",
    " and a quarter": "1/4", " and another 2": 2,
}  # fmt: skip
UNCLEAR = (
    " zorble", " x", " squared", ", remainder 1", " to 4", " not", " more than 3", " out of 5",
    ", with 2 left",
)  # fmt: skip
# Units of one kind, with their sizes; without a size they cannot be compared.
KINDS = (
    (("", "", 0), ("", " apples", 1), ("", " red apples", 1)),
    (("", "", 0), ("", " minutes", 60), ("", " hours", 3600), ("", " seconds", 1)),
    (("", "", 0), ("$", "", 1), ("$", "", 1), ("£", "", None)),
    (("", "", 0), ("", " kg", 1000), ("", " grams", 1)),
)  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """A sentence with an equation: its text before and after the sign, and what a reader may make of both."""

    left: str
    right: str
    values: Values
    truths: set[bool | None]

    def check(self) -> bool:
        """Check that a completion and a mark hold in every reading; returns whether there is one."""
        result, step = (
            pending_result(self.left),
            dict(check_relations(self.left + self.right))[len(self.left) - 1],
        )
        if result is not None:
            assert self.values == {Fraction(result.replace("$", "").replace("£", ""))}, (self, result)
        assert step is None or self.truths == {step.ok}, (self, step)
        return step is not None or result is not None


def draw_sentence(choose: Choose) -> Sentence:
    """Draw a sentence from choices."""
    kind = choose(KINDS)
    (symbol, noun, size), (other_symbol, other, other_size) = choose(kind), choose(kind)
    terms, signs = [choose(NUMBERS)], []
    text = f"{symbol}{terms[0]}{noun}"
    for _ in range(choose((1, 1, 2))):
        signs.append(choose(tuple(SIGNS)))
        terms.append(choose(NUMBERS))
        text += f" {signs[-1]} " + (f"{symbol}{terms[-1]}{noun}" if SIGNS[signs[-1]] in "+-" else terms[-1])
    whole = evaluate(terms, [SIGNS[sign] for sign in signs])
    before, values = _before(choose, terms, [SIGNS[sign] for sign in signs], whole)
    if choose((False, False, False, True)) and choose((False, True)):
        text, values = f"{text} does not", {None}
    result = choose((whole, *values)) if choose((True, True, False)) else Fraction(7)
    if result is None or "/" in format_number(result):
        result = Fraction(7)
    middle, after, results = _after(choose, result, whole)
    written = format_number(abs(result))
    right = f" {'-' * (result < 0)}{other_symbol}{written}{middle}{other}{after}{choose(ENDS)}"
    sizes = {size, other_size} - {0}
    ratio = (
        Fraction(other_size or 1, size or 1)
        if len(sizes) > 1 and 0 not in (size, other_size)
        else Fraction(1)
    )
    places = len(written.partition(".")[2])
    truths = {
        None if left is None or claimed is None or sizes > {None} else _equal(left, claimed * ratio, places)
        for left, claimed in product(values, results)
    }
    return Sentence(f"{before}{text} =", right, values, truths)


def evaluate(terms: Sequence[object], operators: Iterable[str]) -> Fraction | None:
    """The value of a sum by Python's precedence; None if it divides by zero."""
    first, *others = (f"Fraction('{term}')" for term in terms)
    code = first + "".join(f"{operator}{term}" for operator, term in zip(operators, others, strict=True))
    try:
        return Fraction(eval(code))
    except ZeroDivisionError:
        return None


def _before(
    choose: Choose, terms: list[str], operators: list[str], whole: Fraction | None
) -> tuple[str, Values]:
    """Text before a sum, and the values of both."""
    joint = choose((" ", " ", ": ", "\n"))
    match choose(("harmless", "harmless", "numeral", "factor", "unknown")):
        case "harmless":
            return choose(HARMLESS), {whole}
        case "numeral":
            numeral, name = choose(tuple(NUMERALS)), choose(tuple(OPERATORS))
            value, operator = NUMERALS[numeral], OPERATORS[name]
            readings = {
                evaluate([value, *terms], [operator, *operators]),
                evaluate([value, whole], [operator]),
            }
            return f"{numeral} {name}{joint}", readings
        case "factor":
            name = choose(tuple(FACTORS))
            factor = FACTORS[name]
            return f"{name} ", {
                evaluate([factor, *terms], ["*", *operators]),
                evaluate([factor, whole], ["*"]),
            }
    return f"{choose(UNKNOWN)} ", {None}


def _after(choose: Choose, result: Fraction, whole: Fraction | None) -> tuple[str, str, Values]:
    """Text directly after a result, and after its unit, and the values of all."""
    match choose(("harmless", "harmless", "scale", "percent", "added", "operator", "unclear")):
        case "scale":
            name = choose(tuple(SCALES))
            return name, "", {evaluate([result, SCALES[name]], ["*"])}
        case "percent":  # who writes 100 times the value means it
            strict = result / 100
            return choose(("%", " percent")), "", {strict} if strict == whole else {strict, result}
        case "added":
            name = choose(tuple(ADDED))
            return "", name, {evaluate([result, ADDED[name]], ["+"])}
        case "operator":
            name, comma = choose(tuple(OPERATORS)), choose(("", ","))
            return "", f"{comma} {name} 3", {evaluate([result, 3], [OPERATORS[name]])}
        case "unclear":
            return "", choose(UNCLEAR), {None}
    return "", "", {result}


def _equal(value: Fraction, claimed: Fraction, places: int) -> bool:
    """Whether a value, which may be rounded if it has more than two decimal places, is what is claimed."""
    rounds = places > 0 and claimed != 0 and (100 * value).denominator > 1
    return value == claimed or (rounds and 2 * abs(value - claimed) * 10**places <= 1)
