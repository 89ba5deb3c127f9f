"""Exact arithmetic in prose: final answers, pending results and checks of written equations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """An equation in a text, or a chain of them."""

    expression: str  # the left side as written
    claimed: str  # value of its result, the first wrong one of a chain, as format_number() writes it
    computed: str  # value of the left side, as format_number() writes it; in percent if the result is
    ok: bool  # whether all sides have the same value, or the rounded one after "≈"
    start: int  # position of the left side in the text, in characters
    result: int  # position of the result
    end: int  # position after the result
