"""Texts as they grow: whole characters, stop strings, and which tokens the calculator inserts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.output_stream import Detokenizer, OutputStream
from thirteen.runtime.options import Options


def detokenize(pieces, stop=()):
    detokenizer = Detokenizer(stop)
    return [*map(detokenizer.feed, pieces), detokenizer.finish()], detokenizer.stopped


def test_whole_characters_are_shown_and_what_may_begin_a_stop_string_is_held_back():
    for pieces, stop, texts, stopped in (
        ([b"a\xc3", b"\xa9", b"\xf0\x9f", b"\x98", b"\x80"], (), ["a", "é", "", "", "😀", ""], False),
        ([b"a\xc3"], (), ["a", "\ufffd"], False),
        ([b"a\n", b"\nb", b"\n"], ["\n\n"], ["a", "", "", ""], True),
    ):
        assert detokenize(pieces, stop) == (texts, stopped)


@given(
    st.text("ab\né", max_size=30), st.lists(st.text("ab\né", min_size=1, max_size=4), max_size=3), st.data()
)
def test_however_the_bytes_are_split_the_text_ends_before_the_first_stop_string(text, stop, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    texts, stopped = detokenize(pieces, stop)
    whole, _ = detokenize([raw], stop)
    assert "".join(texts) == "".join(whole)
    assert not any(s in "".join(texts) for s in stop)
    assert stopped == any(s in text for s in stop)
    assert stopped or "".join(texts) == text


def fed(engine, data, *stop):
    output = OutputStream(engine.model, Options(stop=stop))
    for byte in data:
        output.feed(byte)
    return output


@pytest.mark.parametrize("held", [b"\n", b"\xc3"], ids=["of a stop string", "of a character"])
def test_no_result_follows_what_is_held_back(engine, held):
    """It was inserted behind a newline that the text did not have yet."""
    output = fed(engine, b"3 + 4 =" + held, "\n\n")
    assert output.text == "3 + 4 =" and not output.inserted_tokens() and not output.no_digit


def test_a_digit_may_follow_text_that_a_stop_string_holds_back(engine):
    """After a result and a line break, which a stop string may begin with, no list could go on with "2."."""
    output = fed(engine, b"12 * 13 =", "\n\n", "6x")
    for byte in output.inserted_tokens():
        output.feed(byte)
    assert output.text == "12 * 13 = 15" and output.no_digit
    output.feed(ord("\n"))
    assert output.text == "12 * 13 = 156" and not output.no_digit
