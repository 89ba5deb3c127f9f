"""Exact arithmetic in prose: final answers, pending results and checks of written equations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """An equation in a text.

    Attributes:
        expression: the left side as written.
        claimed: value of the right side, as format_number() writes it.
        computed: value of the left side, as format_number() writes it; in percent if the right side is.
        ok: whether the values are equal, or the claimed value is the computed one rounded: to its decimal
            places, or to a whole number if the text says that it rounds. If it does not say so, a computed
            value of at most two decimal places is not rounded, nor any value to zero.
    """

    expression: str
    claimed: str
    computed: str
    ok: bool
