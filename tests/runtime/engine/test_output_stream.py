"""Which tokens of a text the model samples, and which the calculator inserts."""

import pytest
from thirteen.runtime.engine.output_stream import OutputStream, sampled_mask


class Bytes:
    """One token per byte."""

    def token_to_piece(self, token):
        return bytes((token,))

    def tokenize(self, text, *, special, bos, continues=False):
        return list(text.encode())


@pytest.mark.parametrize(
    ("text", "inserted"),
    [
        ("12 * 5 = 60", " 60"),
        ("12*5=60.", "60"),
        ("12 * 5 = 61", ""),  # a wrong result is sampled
        ("first 2 + 3 = 5, then 5 * 4 = 20 in all", " 5 20"),
        ("no sum at all", ""),
    ],
)
def test_results_are_inserted_and_all_else_is_sampled(text, inserted):
    mask = sampled_mask(Bytes(), list(text.encode()))
    assert "".join(one for one, sampled in zip(text, mask, strict=True) if not sampled) == inserted


@pytest.mark.parametrize("held", [b"\n", b"\xc3"], ids=["of a stop string", "of a character"])
def test_no_result_follows_what_is_held_back(held):
    """It was inserted behind a newline that the text did not have yet."""
    output = OutputStream(Bytes(), ("\n\n",), calculator=True)
    for byte in b"3 + 4 =" + held:
        output.feed(byte)
    assert output.text == "3 + 4 =" and not output.inserted_tokens() and not output.no_digit


def test_a_digit_may_follow_text_that_a_stop_string_holds_back():
    """After a result and a line break, which a stop string may begin with, no list could go on with "2."."""
    output = OutputStream(Bytes(), ("\n\n", "6x"), calculator=True)
    for byte in b"12 * 13 =":
        output.feed(byte)
    for byte in output.inserted_tokens():
        output.feed(byte)
    assert output.text == "12 * 13 = 15" and output.no_digit
    output.feed(ord("\n"))
    assert output.text == "12 * 13 = 156" and not output.no_digit
