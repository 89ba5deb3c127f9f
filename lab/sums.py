"""Writes synthetic one-step word problems with worked solutions, which a small model can partly solve.

python lab/sums.py OUTPUT [--rows 3000] [--held-out 1000] [--seed 13]

It writes OUTPUT.jsonl and OUTPUT-held-out.jsonl: JSON lines with question, solution and answer. For any seed,
no sum of the held-out part is in the rest, so memorized sums are of no use. The same numbers in another order
or with another sign may be: 4 + 2 is held out, but 2 + 4 and 4 - 2 are not.
"""

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thirteen.models.rows import TrainingRow

_HELD_OUT = 5  # one sum in five is held out
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
class _Operation:
    """An operation: its sign, its result, a generator of operands, and templates of question and solution."""

    sign: str
    result: Callable[[int, int], int]
    draw: Callable[[random.Random], tuple[int, int]]
    templates: tuple[tuple[str, str], ...]


def _addends(rng: random.Random) -> tuple[int, int]:
    return rng.randint(2, 60), rng.randint(2, 60)


def _smaller_second(rng: random.Random) -> tuple[int, int]:
    first = rng.randint(5, 90)
    return first, rng.randint(2, first - 2)


def _factors(rng: random.Random) -> tuple[int, int]:
    return rng.randint(2, 12), rng.randint(2, 12)


def _dividend_divisor(rng: random.Random) -> tuple[int, int]:
    each, parts = _factors(rng)
    return each * parts, parts


_OPERATIONS = (
    _Operation("+", lambda a, b: a + b, _addends, (
        ("{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
         "{name} now has {sum} {things}."),
        ("There are {a} {things} on the table and {b} {things} on the floor. How many {things} are there?",
         "There are {sum} {things}."),
        ("{name} found {a} {things} on Monday and {b} {things} on Tuesday. "
         "How many {things} did {name} find?",
         "{name} found {sum} {things}."),
        ("{name} has {a} {things}. {other} has {b} {things}. How many {things} do they have together?",
         "Together they have {sum} {things}."),
    )),
    _Operation("-", lambda a, b: a - b, _smaller_second, (
        ("{name} had {a} {things} and gave {b} of them to {other}. How many {things} does {name} have left?",
         "{name} has {sum} {things} left."),
        ("There were {a} {things} in a shop. {b} of them were sold. How many {things} are left?",
         "There are {sum} {things} left."),
        ("{name} has {a} {things}. {b} of them are red and the others are blue. How many {things} are blue?",
         "There are {sum} blue {things}."),
        ("{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have than {other}?",
         "{name} has {sum} more {things}."),
    )),
    _Operation("*", lambda a, b: a * b, _factors, (
        ("{name} has {a} {boxes} with {b} {things} in each. How many {things} does {name} have?",
         "{name} has {sum} {things}."),
        ("There are {a} {boxes}. Each of them holds {b} {things}. How many {things} are there in all?",
         "There are {sum} {things} in all."),
        ("{name} buys {a} {things}. Each costs {b} dollars. How many dollars does {name} pay?",
         "{name} pays {sum} dollars."),
        ("{name} reads {b} pages every day. How many pages does {name} read in {a} days?",
         "{name} reads {sum} pages."),
    )),
    _Operation("/", lambda a, b: a // b, _dividend_divisor, (
        ("{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
         "Each friend gets {sum} {things}."),
        ("{name} puts {a} {things} into {b} {boxes}, the same number in each. How many {things} are in each?",
         "There are {sum} {things} in each."),
        ("{b} tickets cost {a} dollars in all. How many dollars does one ticket cost?",
         "One ticket costs {sum} dollars."),
        ("{name} walked {a} miles in {b} days, the same distance each day. How many miles a day was that?",
         "{name} walked {sum} miles a day."),
    )),
)  # fmt: skip


def draw_sums(count: int, seed: int, *, held_out: bool = False) -> list[TrainingRow]:
    """Draw distinct questions, of the held-out sums or of the others; equal on every machine."""
    found: dict[str, TrainingRow] = {}
    for row in _generate(random.Random(f"{seed} {held_out}"), held_out):
        if len(found) == count:
            break
        found.setdefault(row.question, row)
    return list(found.values())


def _generate(rng: random.Random, held_out: bool) -> Iterator[TrainingRow]:
    while True:
        operation = rng.choice(_OPERATIONS)
        a, b = operation.draw(rng)
        name, other = rng.sample(_NAMES, 2)
        question, solution = rng.choice(operation.templates)
        things, boxes = rng.choice(_THINGS), rng.choice(_BOXES)
        if _is_held_out(operation.sign, a, b) != held_out:
            continue
        result = operation.result(a, b)
        words = {"name": name, "other": other, "things": things, "boxes": boxes, "a": a, "b": b}
        words["sum"] = f"{a} {operation.sign} {b} = {result}"
        yield TrainingRow(question.format(**words), solution.format(**words), str(result))


def _is_held_out(sign: str, a: int, b: int) -> bool:
    """Whether a sum is held out; the same numbers in another order or with another sign are another sum."""
    return hashlib.sha256(f"{a} {sign} {b}".encode()).digest()[0] % _HELD_OUT == 0


def main() -> None:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=13)
    given = parser.parse_args()
    for name, rows in (
        (f"{given.output}.jsonl", draw_sums(given.rows, given.seed)),
        (f"{given.output}-held-out.jsonl", draw_sums(given.held_out, given.seed, held_out=True)),
    ):
        Path(name).write_text("".join(f"{json.dumps(vars(row))}\n" for row in rows))
        print(name)


if __name__ == "__main__":
    main()
