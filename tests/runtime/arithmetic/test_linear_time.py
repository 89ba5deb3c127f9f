"""Reading takes time linear in the length of a text, whatever it is; it delays all clients of a server."""

import time
import timeit

import pytest
from thirteen.runtime.arithmetic.equations import has_number, pending_result, read_equations
from thirteen.runtime.arithmetic.final_answer import final_answer, parse_number

HOSTILE_PIECES = (
    "9", "9 ", "1,", "1,234", "1,234,", "1.", "1. ", "1/", "1 1/", "1 and ", "0/0 ", "½", "-½", "(", ")",
    "((1)+", "[", "{", "{a}", "2^", "9^-", "9^{", "9²", "²", "1e", "9^300 ", "9" * 990 + "^300 ", "m^-2 ",
    "1 m^1", "-", "- ", "1-", "1 - ", "-$", "=", "==", "= ", "= - ", "1=", "1+1=", "1 + 1 = ", "1 + 1 = 2. ",
    "= 1", "is ", "is not ", "is minus ", "1% of 1 is ", "1% of ", "of ", "more than ", "≈", "<", "<<",
    "<<1=1>>", "=<<", "a = .", "x=1 or ", ".", "..a", ". ", ":", "!", "…", "a", "a ", "a-", "a/", "1 a ",
    "x ", "1 x ", "0x1", "1'234'", "12 000 a ", "1 000 ", "1 hour and ", "so ", "Tom has ", "in total ",
    "12 eggs ", "$", r"\$", "= $*", "\n", "\n- ", "\n* ", "#", "####\n", "> ", "*", "**", "* ", "a*  ",
    "(1) ", "&", "&a", "&#1;", "\\", r"\text{", r"\frac{", r"\frac{1}{", r"\frac1", r"\boxed{1", r"\boxed{",
    r"\boxed{{a}", r"\boxed{{x", r"\times ", r"\neq ", "=about ", " ", "answer is ", "answer: 5 ",
)  # fmt: skip

READERS = (
    lambda text: read_equations(text, text),
    lambda text: pending_result(f"{text} 1 + 1 ="),
    lambda text: final_answer(text, text),
    parse_number,
    has_number,
)


def seconds(read, text):
    """The shortest time of two."""
    return min(timeit.repeat(lambda: read(text), time.process_time, number=1, repeat=2))


@pytest.mark.exhaustive
@pytest.mark.parametrize("piece", HOSTILE_PIECES, ids=lambda piece: repr(piece[:20]))
def test_eight_times_the_text_takes_about_eight_times_as_long(piece):
    """Quadratic time would be 64 times as long; the bound is generous for busy machines."""
    text = piece * (500 // len(piece) + 1)
    for read in READERS:
        for end in ("", "x}"):
            assert seconds(read, text * 8 + end) < 20 * seconds(read, text + end) + 0.02, read


def test_a_question_of_dots_delays_nobody():
    """It took 23 s."""
    assert seconds(lambda text: read_equations("1 + 1 = 2", text), "." * 25_000) < 1
