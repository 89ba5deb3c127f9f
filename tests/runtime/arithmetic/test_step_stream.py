"""Step stream: the equations of the text so far, without reading it again."""

import re
from time import process_time

from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.arithmetic.calculator import check_steps
from thirteen.runtime.arithmetic.step_stream import StepStream

SNIPPETS = st.sampled_from(
    [
        "12 + 30 = 42. ", "5 * 5 =\n 25\n", "2 + 2 = 5, ", "20% of 85 is 17. ", "So x = 3; ",
        "1 + 1 = 2 = 2.0\n",
        "**3 + 4 = 7**\n", "\\text{price} = 3 * $4 = $12.\n", "48/2 = <<48/2=24>>24 clips. ",
        "\\\\", "& ", "= ",
        "word ", "word " * 80, "\n\n", "- 7 + 1 = 8\n", "2. 3 * 3 = 9\n",
        "(1 + 2) * 3 \\approx 9. ", "\\(", "{", "}",
        "17 / 5 = 3, remainder 2. ", "17 / 5 = 3, ", "remainder ", "with a ", "with 3, a ", "**",
        "17 / 5 = 3 (", "and 20 minutes ",
        "1/3 = 0.33...\n", "10 - 3\n= 7\n", "3 x 4 = 12, 5 x 6 = 30. ",
    ]
)  # fmt: skip


def complete(text):
    """The text up to where further text cannot change its equations."""
    ends = [match.end() for match in re.finditer(r"[.!?;]\s|\n", text)]
    return text[: ends[-1]] if ends else ""


def feed(pieces):
    stream, found = StepStream(), []
    for piece in pieces:
        found += stream.feed(piece)
    return found


@given(st.lists(SNIPPETS, max_size=30), st.data())
def test_any_pieces_give_the_equations_of_the_whole(snippets, data):
    text = "".join(snippets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert feed(pieces) == list(check_steps(complete(text)))


@given(st.lists(SNIPPETS, max_size=30))
def test_single_characters_give_the_equations_of_the_whole(snippets):
    text = "".join(snippets)
    assert feed(text) == list(check_steps(complete(text)))


def test_an_open_brace_repeats_no_equation():
    assert len(feed(["{ so 1 + 1 = 2. ", "2 + 2 = 4. ", "3 + 3 = 6. "])) == 3


def test_the_time_is_linear():
    """It was quadratic: 26 s for 2,000 pieces."""

    def seconds(times):
        pieces = ["12 ", "+ 30 ", "= 42. "] * times
        start = process_time()
        assert len(feed(pieces)) == times
        return process_time() - start

    seconds(50)
    assert seconds(1600) < 40 * seconds(100)


def test_no_text_is_kept_beyond_its_use():
    stream = StepStream()
    for _ in range(1000):
        stream.feed("Words without a sum. And ")
        assert len(stream._text) < 1000
