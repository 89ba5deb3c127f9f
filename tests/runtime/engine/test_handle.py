"""Handles, fed as the engine feeds them: no update is lost, whenever it comes."""

import asyncio
from functools import partial
from threading import Thread

import pytest
from thirteen.runtime.answer import Piece, grade
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.request import Request, SequenceEnd, StopReason, Timings, Usage

END = SequenceEnd(StopReason.END, Usage(1, 2), Timings(0, 0, 0))


def piece_of(text, end=None):
    return Piece(text, tuple(text.encode()), end=end)


def handle_of(kind=Handle):
    return kind(lambda: None, partial(grade, Request((1,))))


class LateHandle(Handle):
    """Its last update comes from another thread while an iterator reads `done`."""

    reads = 0

    @property
    def done(self):
        self.reads += 1
        if self.reads == 1:
            last = Thread(target=self.put, args=(piece_of("the last", END),), daemon=True)
            last.start()
            last.join(0.2)  # put() blocks if the reader holds the lock
        return super().done


async def pieces_of(handle):
    return [piece async for piece in handle]


@pytest.mark.parametrize("take", [list, lambda handle: asyncio.run(pieces_of(handle))])
def test_the_last_update_is_not_lost_between_two_reads(take):
    pieces = take(handle_of(LateHandle))
    assert "".join(piece.text for piece in pieces) == pieces[-1].answer.text == "the last"
    assert bytes(token for piece in pieces for token in piece.tokens) == b"the last"


@pytest.mark.parametrize("take", [list, lambda handle: asyncio.run(pieces_of(handle))])
def test_updates_before_a_failure_come_first_and_then_the_failure(take):
    handle, failure, seen = handle_of(), ValueError("broken"), []
    handle.put(piece_of("some"))
    handle.fail(failure)
    with pytest.raises(ValueError, match="broken"):
        for piece in handle:
            seen.append(piece.text)
    assert seen == ["some"]
    with pytest.raises(ValueError, match="broken"):
        take(handle)


def test_each_piece_goes_to_one_iterator_and_the_answer_to_all():
    handle = handle_of()
    handle.put(piece_of("one "))
    first = iter(handle)
    assert next(first).text == "one "
    handle.put(piece_of("two", END))
    others = list(handle)
    assert [piece.text for piece in others] == ["two"]
    assert [(piece.text, piece.answer.text) for piece in first] == [("", "one two")]
