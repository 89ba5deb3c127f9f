"""Detokenizer: no part of a character and no stop string is ever shown."""

from hypothesis import given
from hypothesis import strategies as st
from thirteen.runtime.engine.detokenizer import Detokenizer


def detokenize(pieces, stop=()):
    detokenizer = Detokenizer(stop)
    return [*map(detokenizer.feed, pieces), detokenizer.finish()], detokenizer.stopped


def test_a_character_is_shown_when_it_is_complete():
    assert detokenize([b"a\xc3", b"\xa9", b"\xf0\x9f", b"\x98", b"\x80"])[0] == ["a", "é", "", "", "😀", ""]


def test_an_incomplete_character_ends_as_a_replacement_character():
    assert detokenize([b"a\xc3"])[0] == ["a", "\ufffd"]


def test_what_may_begin_a_stop_string_is_held_back():
    assert detokenize([b"a\n", b"\nb", b"\n"], ["\n\n"]) == (["a", "", "", ""], True)
    assert detokenize([b"a\n", b"b\n"], ["\n\n"]) == (["a", "\nb", "\n"], False)


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
