"""Pending results and checked equations, from tables and from random sums."""

import random
import time
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thirteen.runtime.arithmetic import Step
from thirteen.runtime.arithmetic.calculator import check_steps, is_verified, pending_result
from thirteen.runtime.arithmetic.final_answer import format_number

from .calculator_cases import GSM8K, NOT_PENDING, PENDING, STEPS
from .hostile_pieces import EQUATION_PIECES
from .sentences import draw_sentence


@pytest.mark.parametrize(("text", "result"), PENDING + GSM8K)
def test_pending_result(text, result):
    assert pending_result(text) == result


@pytest.mark.parametrize("text", NOT_PENDING)
def test_no_result_is_pending(text):
    assert pending_result(text) is None


@pytest.mark.parametrize("length", range(280, 320))
def test_sum_longer_than_the_window_has_no_result(length):
    """Cut at the window, the sum would begin at another number or inside one."""
    text = "11" + " + 11" * (length // 5) + " " * (length % 5) + "="
    result = f"{11 * (length // 5 + 1)}"
    assert pending_result(text) in ((None,) if len(text) > 300 else (result, f" {result}"))


# Random sums. `value` is None if the sum divides by zero.

LOOSE, ADDED, MULTIPLIED, CLOSED = range(4)


@dataclass
class Sum:
    text: str
    value: Fraction | None
    level: int = CLOSED
    bare: bool = False  # whether it is a number without sign and symbol


@dataclass
class SumWriter:
    """Writes random sums in one notation, which is drawn at the start."""

    random: random.Random
    latex: bool = field(init=False)

    def __post_init__(self):
        draw = self.random
        self.latex = draw.random() < 0.25
        space = " " if self.latex else draw.choice((" ", " ", ""))
        times = (r"\times", r"\cdot") if self.latex else ("*", "\u00d7", "·", *("x" * bool(space)))
        over = (r"\div", "/") if self.latex else ("/", "÷")
        signs = {"+": "+", "-": draw.choice("-\u2212"), "*": draw.choice(times), "/": draw.choice(over)}
        self.signs = {operator: f"{space}{sign}{space}" for operator, sign in signs.items()}
        self.money = draw.choice((r"\$", r"\$", "€") if self.latex else "$$€£")
        self.noun, self.other = draw.sample(("apples", "boxes", "hours", "red pens", "Miles"), 2)

    def number(self):
        draw = self.random.random()
        if draw < 0.55:
            text = str(self.random.randint(0, 120))
        elif draw < 0.7:
            text = f"{self.random.randint(1000, 3_000_000):,}"
        else:
            text = f"{self.random.randint(0, 5000) / 100:.{self.random.randint(1, 2)}f}"
        return Sum(text, Fraction(text.replace(",", "")), bare=True)

    def leaf(self):
        draw = self.random.random()
        if draw < 0.06 and "x" not in self.signs["*"]:
            number = self.number()
            return Sum(f"(-{number.text})", -number.value)
        if draw < 0.1:
            base, exponent = self.random.randint(2, 12), self.random.randint(2, 4)
            return Sum(
                f"{base}^{{{exponent}}}" if self.latex else f"{base}^{exponent}", Fraction(base**exponent)
            )
        if draw < 0.14:
            return Sum("2 1/2", Fraction(5, 2)) if " " in self.signs["/"] else Sum("½", Fraction(1, 2))
        return self.number()

    def plain(self, depth):
        if not depth:
            return self.leaf()
        left, right = (self.plain(self.random.randint(0, depth - 1)) for _ in range(2))
        return self.joined(left, self.random.choice("+-**/"), right)

    def counted(self, depth, leaf):
        """A sum in which all terms have the same unit."""
        if not depth:
            return leaf()
        operator, first = self.random.choice("+-*/"), self.counted(self.random.randint(0, depth - 1), leaf)
        if operator in "+-":
            return self.joined(first, operator, self.counted(depth - 1, leaf))
        second = self.number()
        return self.joined(
            *((second, "*", first) if operator == "*" and depth % 2 else (first, operator, second))
        )

    def amount(self):
        number = self.number()
        return Sum(self.money + number.text, number.value)

    def things(self):
        number = self.number()
        if self.random.random() < 0.7:
            return Sum(f"{number.text} {self.unit(self.noun)}", number.value)
        rate = self.number()
        times = f"{number.text} {self.unit(self.other)}{self.signs['*']}{rate.text}"
        return Sum(
            f"{times} {self.unit(f'{self.noun}/{self.other.split()[-1]}')}",
            number.value * rate.value,
            MULTIPLIED,
        )

    def unit(self, text):
        return rf"\text{{ {text}}}" if self.latex else text

    def share(self):
        number, percent = self.number(), self.random.randint(1, 200)
        sign = r"\%" if self.latex else "%"
        return Sum(f"{percent}{sign} of {number.text}", number.value * percent / 100, MULTIPLIED)

    def joined(self, left, operator, right):
        if operator == "/" and self.latex and self.random.random() < 0.5:
            return Sum(rf"\frac{{{left.text}}}{{{right.text}}}", computed(left.value, "/", right.value))
        level = ADDED if operator in "+-" else MULTIPLIED
        value = computed(left.value, operator, right.value)
        first = left.text if left.level >= level else f"({left.text})"
        second = right.text if right.level > level else f"({right.text})"
        if operator == "*" and left.bare and second.startswith("(") and self.random.random() < 0.3:
            return Sum(first + second, value, level)
        return Sum(first + self.signs[operator] + second, value, level)

    def sum(self):
        """A sum, and whether its result is an amount of money."""
        kind = self.random.choice(("plain", "plain", "money", "things", "share"))
        depth = self.random.randint(1, 4)
        if kind == "share":
            return self.share(), False
        if kind == "plain":
            return self.plain(depth), False
        return self.counted(depth, self.amount if kind == "money" else self.things), kind == "money"

    def text_and_result(self):
        """A text that ends in a sum, and the pending result."""
        made, money = next(made for made in iter(self.sum, None) if len(made[0].text) < 250)
        prose = (
            *("", "so ", "She has ", "Total: ", "1. ", "Step 2: ", "x = ", "She buys:\n* ", "It is\n", "**"),
        )
        latex = (r"\(", r"\[ ", "$$", r"\text{Total} = ", "is ", "&= ")
        before = self.random.choice(latex if self.latex else prose)
        space = self.random.choice((" ", ""))
        result = result_of(made, self.money if money else "")
        return f"{before}{made.text}{space}=", None if result is None else space + result


def computed(left, operator, right):
    if left is None or right is None or (operator == "/" and not right):
        return None
    return {"+": left + right, "-": left - right, "*": left * right, "/": right and left / (right or 1)}[
        operator
    ]


def result_of(made, money):
    """The expected result, found by trying numbers of decimal places."""
    for places in range(0, 3 if money else 7, 2 if money else 1):
        if made.value is not None and (made.value * 10**places).denominator == 1:
            digits = str(abs(made.value.numerator) * 10**places // made.value.denominator).zfill(places + 1)
            whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
            whole = f"{int(whole):,}" if "," in made.text else whole
            return (
                None
                if len(digits) > 18
                else f"{'-' * (made.value < 0)}{money}{whole}{'.' * bool(part)}{part}"
            )
    return None


@given(st.randoms(use_true_random=False))
def test_result_of_a_random_sum(draw):
    text, result = SumWriter(draw).text_and_result()
    assert pending_result(text) == result


@given(st.randoms(use_true_random=False), st.sampled_from(("", ".", "\n", ", so it is", r"\)", "**")))
def test_pending_result_makes_a_correct_step(draw, after):
    text, _ = SumWriter(draw).text_and_result()
    result = pending_result(text)
    if result is not None:
        assert check_steps(text + result + after)[-1].ok


@settings(max_examples=1_000)
@given(st.randoms(use_true_random=False))
def test_marks_and_completions_hold_in_every_reading(draw):
    draw_sentence(draw.choice).check()


def test_most_sentences_without_words_that_calculate_are_marked():
    draw = random.Random(13)
    sentences = [draw_sentence(draw.choice) for _ in range(1_000)]
    assert sum(sentence.check() for sentence in sentences) > 300


@given(st.text() | st.text(alphabet="0123456789.,+-*/x^%$€=≈()[]{}\\ \nfracoftimesis\u00d7÷\u2212½²:;<>|`#"))
def test_no_text_raises(text):
    for end in ("=", " = ", "%) of 8 is"):
        result = pending_result(text + end)
        assert result is None or result.strip().isascii() or "€" in result
    assert all(isinstance(step, Step) for step in check_steps(text + "= 5"))


@pytest.mark.slow
@pytest.mark.parametrize("piece", EQUATION_PIECES)
def test_time_is_linear_in_hostile_text(piece):
    """Backtracking over 30 kB would take minutes. The limit is generous for busy machines."""
    text = piece * (30_000 // len(piece))
    start_s = time.process_time()
    for end in ("=", " 1 + 1 = ", "20% of 85 is"):
        pending_result(text + end)
    assert time.process_time() - start_s < 0.5
    check_steps(text)
    assert time.process_time() - start_s < 5


def test_text_without_a_pending_result_costs_little():
    """pending_result() runs after every token on all text so far."""
    text = "12 * 13 = 156 and " * 50_000
    start_s = time.process_time()
    for _ in range(1_000):
        pending_result(text)
    assert time.process_time() - start_s < 1


@pytest.mark.parametrize(("text", "steps"), STEPS)
def test_steps_of_a_text(text, steps):
    assert check_steps(text) == tuple(Step(*step) for step in steps)


def test_right_side_is_not_cut_at_the_window():
    """Cut at the window, the right side would lose terms and a correct equation would fail."""
    for length in range(1, 200):
        steps = check_steps(f"{length} + 1 = {'1' + ' + 1' * length}.")
        assert all(step.ok for step in steps)


@pytest.mark.parametrize(
    ("text", "value", "verified"),
    [
        ("3 * 4 = 12. 12 + 5 = 17", "17", True),
        ("3 * 4 = 12. 12 + 5 = 17", "12", True),
        ("3 * 4 = 12. 12 + 5 = 17", "18", False),
        ("3 * 4 = 13. 12 + 5 = 17", "17", False),
        ("10 / 3 = 3.33", "3.33", True),
        ("10 / 3 = 3.33", "10/3", True),
        ("3 * 4 = 12", None, False),
        ("It is 12", "12", False),
    ],
)
def test_is_verified(text, value, verified):
    assert is_verified(check_steps(text), value) is verified


@settings(max_examples=50)
@given(st.fractions(-(10**6), 10**6, max_denominator=10**6), st.integers(1, 5))
def test_only_the_rounded_result_is_correct(value, places):
    rounded = Fraction(round(value * 10**places), 10**places)
    for off in (-2, 0, 2):
        claimed = rounded + Fraction(off, 10**places)
        written = decimal(claimed, places)
        (step,) = check_steps(f"so ({value.numerator}) / {value.denominator} = {written}")
        exact = claimed == 0 or (100 * value).denominator == 1
        assert step.ok is (claimed == value if exact else off == 0)
        assert step.computed == format_number(value)


def decimal(value, places):
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
