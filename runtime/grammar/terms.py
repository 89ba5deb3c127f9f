"""Texts and numbers as GBNF."""

from collections import defaultdict
from os.path import commonprefix  # of characters

BOUND_MAX = 10**20  # of the numbers
DEPTH_MAX = 32  # brackets in brackets


def literal(text: str) -> str:
    """A text that has no control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def times(name: str, least: int, most: int | None) -> str:
    """A rule from least to most times; None stands for no bound."""
    if most is None:
        return f"{name}{{{least},}}" if least else f"{name}*"
    return f"{name}{{{least},{most}}}" if most else ""


def choice(texts: list[str], depth: int = 0) -> str:
    """One of several texts. What some begin with stands once, so that the library has fewer to follow."""
    if len(texts) == 1 or depth == DEPTH_MAX:
        return " | ".join(map(literal, texts))
    head = commonprefix(texts)  # noqa: RUF071 (they are no paths)
    tails: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        tails[text[len(head) : len(head) + 1]].append(text[len(head) :])
    optional = "?" if tails.pop("", None) else ""
    inside = " | ".join(choice(tail, depth + 1) for tail in tails.values())
    return f"{literal(head)} ({inside}){optional}"


def integers(low: int, high: int) -> str:
    """Integers from low to high, both included; there is no -0."""
    ways = [_digits(max(low, 0), high)] if high >= 0 else []
    if low < 0:
        ways.append(f'"-" ({_digits(max(-high, 1), -low)})')
    return " | ".join(ways)


def numbers(low: int | None, high: int | None) -> str:
    """Numbers from low to high, both included; None stands for no bound.

    It takes the rules `unsigned`, for any number without a sign, and `fraction`, from the point on.
    """
    ways = [_fractions(max(low or 0, 0), high)] if high is None or high >= 0 else []
    if low is None or low < 0:
        ways.append(f'"-" ({_fractions(max(-(high or 0), 0), None if low is None else -low)})')
    return " | ".join(ways)


def _fractions(low: int, high: int | None) -> str:
    """Numbers without a sign."""
    if high is None:
        return f"({_digits(low, BOUND_MAX)}) fraction?" if low else "unsigned"
    below = f"({_digits(low, high - 1)}) fraction? | " if low < high else ""
    return f'{below}"{high}" ("." "0"{{1,20}})?'


def _digits(low: int, high: int) -> str:
    """Integers without a sign: those of a length that is not in whole, and those of lengths that are."""
    ways = []
    whole = len(str(high + 1)) - 1  # the longest of which all are in
    while low <= high:
        size = len(str(low))
        if low == 10 ** (size - 1) and size < whole:
            ways.append(f"[1-9] [0-9]{{{size - 1},{whole - 1}}}")
            low = 10**whole
        else:
            end = min(high, 10**size - 1)
            ways.append(_alike(str(low), str(end)))
            low = end + 1
    return " | ".join(ways)


def _alike(low: str, high: str) -> str:
    """Strings of digits from low to high, which are of the same length."""
    if head := commonprefix([low, high]):  # noqa: RUF071
        tail = _alike(low[len(head) :], high[len(head) :])
        return f'"{head}" ({tail})' if tail else f'"{head}"'
    if not low:
        return ""
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    before, after = [], []
    if low[1:] != "0" * rest:
        before.append(f'"{first}" ({_alike(low[1:], "9" * rest)})')
        first += 1
    if high[1:] != "9" * rest:
        after.append(f'"{last}" ({_alike("0" * rest, high[1:])})')
        last -= 1
    between = [f"[{first}-{last}]" + (f" [0-9]{{{rest}}}" if rest else "")] if first <= last else []
    return " | ".join(before + between + after)
