"""Exact arithmetic in prose: final answers, pending results and checks of written equations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """An equation in a text, or a chain of them.

    Attributes:
        expression: the left side as written.
        claimed: value of its result, the first wrong one of a chain, as format_number() writes it.
        computed: value of the left side, as format_number() writes it; in percent if the result is.
        ok: whether all sides have the same value, or the rounded one after "≈".
        start: position of the left side in the text, in characters.
        result: position of the result.
        end: position after the result.
    """

    expression: str
    claimed: str
    computed: str
    ok: bool
    start: int
    result: int
    end: int
