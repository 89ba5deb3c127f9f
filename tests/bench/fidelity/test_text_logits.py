"""Cutting of passages: no position is scored twice, and no more than requested."""

import pytest
from thirteen.bench.fidelity.text_logits import cut_windows

BOS = (0,)


def test_long_passages_are_cut_into_windows_that_start_with_the_prefix():
    windows = cut_windows([(0, 1, 2, 3, 4, 5, 6, 7), (0, 8, 9)], BOS, 4, 100)
    # (0, 7), the rest of the first passage, has no window: the prediction after (0,) is scored already.
    assert [window.tokens for window in windows] == [(0, 1, 2, 3), (0, 4, 5, 6), (0, 8, 9)]
    assert [window.passage for window in windows] == [0, 0, 1]
    assert [window.tokens for window in cut_windows([(1, 2, 3, 4)], (), 2, 100)] == [(1, 2), (3, 4)]
    assert cut_windows([(5, 6)], BOS, 8, 100)[0].tokens == (0, 5, 6), "a missing prefix is added"


@pytest.mark.parametrize("positions", [1, 4, 6, 11])
def test_no_more_positions_are_scored_and_no_more_passages_read_than_requested(positions):
    def passages():
        for number in range(1, 4):
            read.append(number)
            yield (0, number, number, number)

    read = []
    windows = cut_windows(passages(), BOS, 8, positions)
    assert sum(len(window.scored) for window in windows) == min(positions, 3 + 2 + 2)
    assert read == list(range(1, 1 + (1 if positions <= 3 else 2 if positions <= 5 else 3)))
