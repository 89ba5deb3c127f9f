"""How passages are cut: nothing is measured twice, and never more than was asked for."""

import pytest
from thirteen.bench.fidelity.windows import cut_windows

BEGIN = (0,)


def counted(pieces):
    return [[piece.tokens[: at + 2] for at in piece.counted] for piece in pieces]


def test_every_position_but_the_last_counts_and_predicts_the_token_after_it():
    (piece,) = cut_windows([(0, 5, 6, 7)], BEGIN, 8, 100)
    assert counted([piece]) == [[(0, 5), (0, 5, 6), (0, 5, 6, 7)]]


def test_a_beginning_that_passages_share_counts_once():
    first, second = cut_windows([(0, 5, 6, 7), (0, 5, 6, 8, 9)], BEGIN, 8, 100)
    assert len(first.counted) == 3
    assert second.start == 3  # what follows (0, 5, 6) is another token, but its prediction is the same
    assert cut_windows([(0, 5, 6), (0, 5, 6)], BEGIN, 8, 100) == cut_windows([(0, 5, 6)], BEGIN, 8, 100)


def test_long_passages_are_cut_to_parts_that_begin_as_texts_do_and_keep_their_passage():
    pieces = cut_windows([(0, 1, 2, 3, 4, 5, 6, 7), (0, 8, 9)], BEGIN, 4, 100)
    # (0, 7), the rest of the first passage, is left out: what follows (0,) has been measured.
    assert [piece.tokens for piece in pieces] == [(0, 1, 2, 3), (0, 4, 5, 6), (0, 8, 9)]
    assert [piece.passage for piece in pieces] == [0, 0, 1]
    assert [piece.tokens for piece in cut_windows([(1, 2, 3, 4)], (), 2, 100)] == [(1, 2), (3, 4)]


def test_a_passage_that_does_not_begin_as_texts_do_is_given_that_beginning():
    (piece,) = cut_windows([(5, 6)], BEGIN, 8, 100)
    assert piece.tokens == (0, 5, 6)


@pytest.mark.parametrize("positions", range(1, 12))
def test_no_more_positions_count_than_asked_for_and_no_more_passages_are_read(positions):
    def passages():
        for number in range(1, 4):
            read.append(number)
            yield (0, number, number, number)

    read = []
    pieces = cut_windows(passages(), BEGIN, 8, positions)
    assert sum(len(piece.counted) for piece in pieces) == min(positions, 3 + 2 + 2)
    assert read == list(range(1, 1 + (1 if positions <= 3 else 2 if positions <= 5 else 3)))


@pytest.mark.parametrize("passages", [[], [()], [(0,)], [(0,), ()]])
def test_passages_with_nothing_to_predict_are_left_out(passages):
    assert cut_windows(passages, BEGIN, 8, 100) == []
