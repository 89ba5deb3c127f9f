"""McNemar's exact test of two models that answered the same questions."""


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value (Q. McNemar, Psychometrika 12, 1947).

    Questions that both models got right, or both wrong, say nothing about a difference. Without a difference
    each of the others falls to either side like a coin. The binomial distribution is exact where its normal
    approximation needs more questions.

    Args:
        gained: questions that only the one model got right.
        lost: questions that only the other model got right.
    """
    total = gained + lost
    term = tail = 1  # integers throughout, so nothing is rounded
    for heads in range(min(gained, lost)):
        term = term * (total - heads) // (heads + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << total))
