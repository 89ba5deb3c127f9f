"""The bundled texts: format, disjoint sets, and right equations."""

import ast
import operator
import re
from collections.abc import Iterator

import pytest
from thirteen.models.texts import calibration_texts, held_out_texts
from thirteen.runtime.arithmetic.final_answer import final_answer
from thirteen.runtime.calibration.corpus import Passage, read_passages

SETS = {"calibration": (calibration_texts, 95, 55), "held out": (held_out_texts, 30, 20)}
PLAIN = (
    (r"\\frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)"),
    (r"\\boxed\{([^{}]*)\}", r"\1"),
    (r"\\(?:times|cdot)", "*"),
    (r"\\div", "/"),
    (r"\^", "**"),
    (r"[$€£\\]|\*\*(?=\D)", ""),
    (r"(?<=\d),(?=\d{3})", ""),
    (r"%", "/100"),
    (r"(?<=\d) of (?=\d)", " * "),
    (r"(?<=\d) (?:km|m|cm|g|kg|ml|dollars|days)(?= [-+*/=])", ""),
)
NUMBER = r"\d+(?:\.\d+)?"
SIDE = rf"[( ]*{NUMBER}[) ]*(?:(?:\*\*|[-+*/])[( -]*{NUMBER}[) ]*)*"
EQUATION = re.compile(rf"{SIDE}(?:[=≈]{SIDE})+")
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def value(node: ast.AST) -> float:
    if isinstance(node, ast.Expression):
        return value(node.body)
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](value(node.left), value(node.right))
    if isinstance(node, ast.UnaryOp):
        return -value(node.operand)
    assert isinstance(node, ast.Constant)
    return node.value


def split_sides(equation: str) -> Iterator[str]:
    """The sides of an equation, without parentheses that are unbalanced in a side."""
    for side in re.split("[=≈]", equation):
        unclosed = side.count("(") - side.count(")")
        yield side.strip().removeprefix("(" * max(0, unclosed)).removesuffix(")" * max(0, -unclosed))


def equations(text: str) -> Iterator[tuple[str, list[float], float]]:
    """The equations in a text: the matched text, the value of each side, and the tolerance."""
    for pattern, plain in PLAIN:
        text = re.sub(pattern, plain, text)
    for found in EQUATION.finditer(text):
        before, after = text[: found.start()], text[found.end() :]
        glued = (found[0][0].isdigit() and before[-1:].isalpha()) or (
            found[0][-1].isdigit() and after[:1].isalpha()
        )
        if glued or before.rstrip(" (").endswith(tuple("+-*/")):
            continue  # part of an expression with letters, "2x + 3 = 15"
        values = [value(ast.parse(side, mode="eval")) for side in split_sides(found[0])]
        yield found[0].strip(), values, 0.005 if "≈" in found[0] else 1e-9


@pytest.fixture(scope="module", params=SETS)
def passages(request) -> tuple[list[Passage], int, int]:
    path, questions, texts = SETS[request.param]
    return read_passages(path()), questions, texts


def test_there_are_word_problems_and_general_texts(passages):
    found, questions, texts = passages
    assert sum(passage.question is not None for passage in found) >= questions
    assert sum(passage.question is None for passage in found) >= texts


def test_every_equation_of_the_texts_is_right(passages):
    checked = 0
    for passage in passages[0]:
        for equation, values, tolerance in equations(passage.text):
            assert values == pytest.approx([values[0]] * len(values), abs=tolerance, rel=0), equation
            checked += 1
    assert checked >= 2 * passages[1]


def test_the_final_answer_of_each_solution_is_computed_in_it(passages):
    for passage in passages[0]:
        if passage.question is not None:
            answer = final_answer(passage.text)
            computed = [value for _, values, _ in equations(passage.text) for value in values]
            assert answer is not None, passage.question
            assert pytest.approx(answer, abs=0.005) in computed, passage.question


def test_the_sets_share_no_eight_consecutive_words():
    def word_runs(path) -> set[tuple[str, ...]]:
        found = set()
        for passage in read_passages(path):
            words = re.findall(r"\w+", f"{passage.question or ''} {passage.text}".lower())
            found |= {tuple(words[at : at + 8]) for at in range(len(words) - 7)}
        return found

    assert not word_runs(calibration_texts()) & word_runs(held_out_texts())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3 * 4 = 12 eggs", [[12, 12]]),
        ("so 25% of $60 = 15 dollars.", [[15, 15]]),
        (r"\(\frac{3}{4} + \frac{1}{4} = \boxed{1}\)", [[1, 1]]),
        ("2x + 3 = 15 and 12 / 2 = 7", [[6, 7]]),
        ("4n = 24", []),
        ("(as 5^2 = 25)", [[25, 25]]),
        ("1,000 - 8 * 85 = 320", [[320, 320]]),
        ("2 * 3 = 6 = 7 - 1", [[6, 6, 6]]),
    ],
)
def test_the_check_finds_equations(text, found):
    assert [values for _, values, _ in equations(text)] == found
