"""One-step sums in words, drawn by a seed: questions that a small model can partly do, with worked solutions.

The held-out part shares no pair of numbers with the rest, whatever the seed: to know those sums is of no use.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import ThirteenError
from .rows import Row

ROWS_MAX = 100_000
_HELD_OUT = 5  # one of so many pairs of numbers is held out
_NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jamal", "Kim", "Liam",
    "Maya", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Victor", "Wendy", "Yusuf", "Zoe",
)  # fmt: skip
_THINGS = (
    "apples", "books", "marbles", "pencils", "stickers", "cookies", "cards", "shells", "buttons", "flowers",
    "stamps", "balloons", "eggs", "coins", "oranges", "toys",
)  # fmt: skip
_BOXES = ("boxes", "bags", "baskets", "shelves", "jars", "trays", "packs", "drawers")


@dataclass(frozen=True)
class _Kind:
    """A kind of sum: its sign, its result, the numbers it is asked with, and the ways of asking."""

    sign: str
    result: Callable[[int, int], int]
    draw: Callable[[random.Random], tuple[int, int]]
    words: tuple[str, ...]


def _two(rng: random.Random) -> tuple[int, int]:
    return rng.randint(2, 60), rng.randint(2, 60)


def _less(rng: random.Random) -> tuple[int, int]:
    first = rng.randint(5, 90)
    return first, rng.randint(2, first - 2)


def _few(rng: random.Random) -> tuple[int, int]:
    return rng.randint(2, 12), rng.randint(2, 12)


def _shared(rng: random.Random) -> tuple[int, int]:
    each, parts = _few(rng)
    return each * parts, parts


_KINDS = (
    _Kind("+", lambda a, b: a + b, _two, (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "There are {a} {things} on the table and {b} {things} on the floor. How many {things} are there?",
        "{name} found {a} {things} on Monday and {b} {things} on Tuesday. How many {things} did {name} find?",
        "{name} has {a} {things}. {other} has {b} {things}. How many {things} do they have together?",
    )),
    _Kind("-", lambda a, b: a - b, _less, (
        "{name} had {a} {things} and gave {b} of them to {other}. How many {things} does {name} have left?",
        "There were {a} {things} in a shop. {b} of them were sold. How many {things} are left?",
        "{name} has {a} {things}. {b} of them are red and the others are blue. How many {things} are blue?",
        "{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have than {other}?",
    )),
    _Kind("*", lambda a, b: a * b, _few, (
        "{name} has {a} {boxes} with {b} {things} in each. How many {things} does {name} have?",
        "There are {a} {boxes}. Each of them holds {b} {things}. How many {things} are there in all?",
        "{name} buys {a} {things}. Each costs {b} dollars. How many dollars does {name} pay?",
        "{name} reads {b} pages every day. How many pages does {name} read in {a} days?",
    )),
    _Kind("/", lambda a, b: a // b, _shared, (
        "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
        "{name} puts {a} {things} into {b} {boxes}, the same number in each. How many {things} are in each?",
        "{b} tickets cost {a} dollars in all. How many dollars does one ticket cost?",
        "{name} walked {a} miles in {b} days, the same distance each day. How many miles a day was that?",
    )),
)  # fmt: skip


def sums(count: int, seed: int, *, held_out: bool = False) -> list[Row]:
    """Draw questions, no two alike.

    Args:
        count: how many.
        seed: the same one gives the same questions, on every machine.
        held_out: whether of the pairs of numbers that are held out, or of the others.

    Raises:
        ThirteenError: there are to be none, or too many.
    """
    if not 1 <= count <= ROWS_MAX:
        raise ThirteenError(f"{count} sums: from 1 to {ROWS_MAX} can be drawn")
    rows: dict[str, Row] = {}
    for row in _drawn(random.Random(f"{seed} {held_out}"), held_out):  # noqa: S311 - it is to repeat
        rows.setdefault(row.question, row)
        if len(rows) == count:
            break
    return list(rows.values())


def _drawn(rng: random.Random, held_out: bool) -> Iterator[Row]:
    while True:
        kind = rng.choice(_KINDS)
        a, b = kind.draw(rng)
        name, other = rng.sample(_NAMES, 2)
        words = rng.choice(kind.words)
        things, boxes = rng.choice(_THINGS), rng.choice(_BOXES)
        if _is_held_out(kind.sign, a, b) != held_out:
            continue
        question = words.format(name=name, other=other, things=things, boxes=boxes, a=a, b=b)
        result = kind.result(a, b)
        yield Row(question, f"{a} {kind.sign} {b} = {result}", str(result))


def _is_held_out(sign: str, a: int, b: int) -> bool:
    return hashlib.sha256(f"{a} {sign} {b}".encode()).digest()[0] % _HELD_OUT == 0
