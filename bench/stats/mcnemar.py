"""McNemar's test: whether two models that were asked the same questions differ, or only by chance."""


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value.

    Questions that both got right, or both wrong, tell nothing of a difference. If there is none, the others
    fall to either side as coins do; this is how likely so uneven a fall is, or a more uneven one (Q. McNemar,
    Psychometrika 12, 1947; the binomial in place of its approximation, which few such questions forbid).

    Args:
        gained: questions that only the one got right.
        lost: questions that only the other got right.
    """
    total = gained + lost
    term = tail = 1  # whole numbers throughout, so that nothing is lost however many there are
    for heads in range(min(gained, lost)):
        term = term * (total - heads) // (heads + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << total))
