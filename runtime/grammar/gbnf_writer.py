"""GBNF expressions for literals, repetitions, string choices and number ranges."""

from collections import defaultdict
from os.path import commonprefix  # compares characters

BOUND_MAX = 10**20  # largest absolute value of a number's bound
_CHOICE_DEPTH_MAX = 32  # nested groups


def literal(text: str) -> str:
    """Quote a text, which must not contain control characters."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def repetition(rule: str, low: int, high: int | None) -> str:
    """Repeat a rule from `low` to `high` times; None means without limit."""
    if high is None:
        return f"{rule}{{{low},}}" if low else f"{rule}*"
    return f"{rule}{{{low},{high}}}" if high else ""


def string_choice(texts: list[str], depth: int = 0) -> str:
    """Match one of several texts. Common prefixes are factored out, which saves llama.cpp parse stacks."""
    if len(texts) == 1 or depth == _CHOICE_DEPTH_MAX:
        return " | ".join(map(literal, texts))
    prefix = commonprefix(texts)  # noqa: RUF071 (they are no paths)
    suffixes: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        suffixes[text[len(prefix) : len(prefix) + 1]].append(text[len(prefix) :])
    optional = "?" if suffixes.pop("", None) else ""
    group = " | ".join(string_choice(group, depth + 1) for group in suffixes.values())
    return f"{literal(prefix)} ({group}){optional}"


def integer_range(low: int, high: int) -> str:
    """Match the integers from `low` to `high`, both included, without -0."""
    alternatives = [_digits(max(low, 0), high)] if high >= 0 else []
    if low < 0:
        alternatives.append(f'"-" ({_digits(max(-high, 1), -low)})')
    return " | ".join(alternatives)


def number_range(low: int | None, high: int | None) -> str:
    """Match the numbers from `low` to `high`, both included; None means without limit.

    The expression uses the rules `unsigned`, any number without a sign, and `fraction`, a point and digits.
    """
    alternatives = [_unsigned_range(max(low or 0, 0), high)] if high is None or high >= 0 else []
    if low is None or low < 0:
        alternatives.append(f'"-" ({_unsigned_range(max(-(high or 0), 0), None if low is None else -low)})')
    return " | ".join(alternatives)


def _unsigned_range(low: int, high: int | None) -> str:
    if high is None:
        return f"({_digits(low, BOUND_MAX)}) fraction?" if low else "unsigned"
    below = f"({_digits(low, high - 1)}) fraction? | " if low < high else ""
    return f'{below}"{high}" ("." "0"{{1,20}})?'


def _digits(low: int, high: int) -> str:
    """Match unsigned integers by length. Lengths that are completely in the range share an alternative."""
    alternatives = []
    complete = len(str(high + 1)) - 1  # longest length whose integers are all in the range
    while low <= high:
        length = len(str(low))
        if low == 10 ** (length - 1) and length < complete:
            alternatives.append(f"[1-9] [0-9]{{{length - 1},{complete - 1}}}")
            low = 10**complete
        else:
            last = min(high, 10**length - 1)
            alternatives.append(_equal_length_digits(str(low), str(last)))
            low = last + 1
    return " | ".join(alternatives)


def _equal_length_digits(low: str, high: str) -> str:
    """Match the digit strings from `low` to `high`, which have the same length."""
    if prefix := commonprefix([low, high]):  # noqa: RUF071
        rest = _equal_length_digits(low[len(prefix) :], high[len(prefix) :])
        return f'"{prefix}" ({rest})' if rest else f'"{prefix}"'
    if not low:
        return ""
    first, last, length = int(low[0]), int(high[0]), len(low) - 1
    before, after = [], []
    if low[1:] != "0" * length:
        before.append(f'"{first}" ({_equal_length_digits(low[1:], "9" * length)})')
        first += 1
    if high[1:] != "9" * length:
        after.append(f'"{last}" ({_equal_length_digits("0" * length, high[1:])})')
        last -= 1
    between = [f"[{first}-{last}]" + (f" [0-9]{{{length}}}" if length else "")] if first <= last else []
    return " | ".join(before + between + after)
