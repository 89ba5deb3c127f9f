"""Handles, fed as the engine feeds them: no piece is lost, whenever it comes."""

from functools import partial
from threading import Thread

import pytest
from thirteen.runtime.answer import Piece, SequenceEnd, StopReason, Timings, Usage, grade
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.options import Request

from .test_engine import TAKES

END = SequenceEnd(StopReason.END, Usage(1, 2), Timings(0, 0, 0))


def handle_of(kind=Handle):
    return kind(lambda _: None, partial(grade, Request((1,)), None), lambda _: 1)


class LateHandle(Handle):
    """Its last piece comes from another thread while an iterator reads `done`."""

    reads = 0

    @property
    def done(self):
        self.reads += 1
        if self.reads == 1:
            last = Thread(target=self.put, args=(Piece("the last", (1, 2), end=END),), daemon=True)
            last.start()
            last.join(0.2)  # put() blocks if the reader holds the lock
        return super().done


@pytest.mark.parametrize("take", TAKES)
def test_the_last_piece_is_not_lost_between_two_reads(take):
    pieces = take(handle_of(LateHandle))
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "the last"
    assert [token for piece in pieces for token in piece.tokens] == [1, 2]


@pytest.mark.parametrize("take", TAKES)
def test_pieces_before_a_failure_come_first_and_then_the_failure(take):
    handle, seen = handle_of(), []
    handle.put(Piece("some"))
    handle.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        seen.extend(piece.text for piece in handle)
    with pytest.raises(ValueError, match="broken"):
        take(handle)


def test_each_piece_goes_to_one_iterator_and_the_answer_to_all():
    handle, ended = handle_of(), []
    handle.add_done_callback(ended.append)
    handle.put(Piece("one "))
    first = iter(handle)
    assert next(first).text == "one " and handle.place == 1 and not ended
    handle.put(Piece("two", end=END))
    handle.add_done_callback(ended.append)
    assert [piece.text for piece in handle] == ["two"]
    assert [(piece.text, piece.answer.text) for piece in first] == [("", "one two")]
    assert ended == [handle, handle] and handle.place == 0
