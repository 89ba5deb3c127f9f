"""Synthetic word problems of one or two steps with worked solutions.

In some of them the start or the change is asked for, in others one number is not needed. The first sum of a
held-out question is in none of the other questions, for any seed.
"""

import random
import re
from collections.abc import Iterator

from ..models.rows import TrainingRow
from ..models.text_generator.fields import Fields, WordDecks
from ..runtime.arithmetic.calculator import check_steps
from .synthetic_sums import RESULTS, distinct_rows, is_held_out

_LETTERS = "abc"
_STEP = re.compile(r"\[([abcm]) ([-+*/]) ([abcm])\]")  # a sum in a solution; m is the result before it
_ADDEND_MAX, _FACTOR_MAX, _RESULT_MAX = 90, 12, 400

# Question and solution. {a}, {b} and {c} are numbers; the other fields are words, see text_generator/fields.py.
_STORIES = (
    # one step, where the start, the change or the other one is asked for
    ("{name} had some {things}. Then {name} got {b} more and had {a}. How many {things} did {name} have at first?",
     "{name} had [a - b] {things} at first."),
    ("{name} gave {b} {things} to {name2} and has {a} left. How many {things} did {name} have before that?",
     "Before that {name} had [a + b] {things}."),
    ("There were {a} {things} in a shop. Now there are {b}. How many {things} were sold?",
     "They sold [a - b] {things}."),
    ("{name} needs {a} {things} and has found {b} so far. How many more {things} does {name} need?",
     "{name} needs [a - b] more {things}."),
    ("After {b} {persons} had left the hall, {a} {persons} were still there. How many were there at the start?",
     "At the start there were [a + b] {persons}."),
    ("{name} is {b} years younger than {name2}. {name2} is {a} years old. How old is {name}?",
     "{name} is [a - b] years old."),
    ("A {thing} costs {a} dollars. A {thing2} is {b} dollars cheaper. How many dollars does the {thing2} cost?",
     "The {thing2} costs [a - b] dollars."),
    ("{name} walked {a} meters today, {b} meters more than yesterday. How many meters did {name} walk yesterday?",
     "Yesterday {name} walked [a - b] meters."),
    ("{name2} has {b} {things}. {name} has {a} times as many. How many {things} does {name} have?",
     "{name} has [a * b] {things}."),
    ("{name} has {a} {things}, {b} times as many as {name2}. How many {things} does {name2} have?",
     "{name2} has [a / b] {things}."),
    ("It takes {name} {b} minutes to make a {thing}. How many minutes does it take to make {a} {things}?",
     "It takes [a * b] minutes."),
    ("A {thing} costs {b} dollars. How many {things} can {name} buy with {a} dollars?",
     "{name} can buy [a / b] {things}."),
    # one step, with a number that is not needed
    ("{name} has {a} {things} and {c} {things2}. {name} buys {b} more {things}. "
     "How many {things} does {name} have now?",
     "{name} now has [a + b] {things}."),
    ("{name} had {c} {things2} and {a} {things}. {name} lost {b} {things}. How many {things} are left?",
     "There are [a - b] {things} left."),
    ("There are {a} {persons} and {c} {persons2} in a hall. Then {b} {persons} leave. How many {persons} stay?",
     "In the hall stay [a - b] {persons}."),
    ("{name}, who is {c} years old, reads {a} pages a day for {b} days. How many pages does {name} read?",
     "{name} reads [a * b] pages."),
    ("In {c} minutes {name} shares {a} {things} equally among {b} {persons}. How many {things} does each get?",
     "Each gets [a / b] {things}."),
    ("{name} sold {a} {things} in the morning and {b} in the afternoon, for {c} dollars each. "
     "How many {things} did {name} sell?",
     "{name} sold [a + b] {things}."),
    ("{name} paid {a} dollars for {c} {things} and {b} dollars for a {thing2}. How many dollars is that in all?",
     "That is [a + b] dollars in all."),
    ("A box of {c} kilograms has {a} rows of {b} {things}. How many {things} are in it?",
     "There are [a * b] {things} in it."),
    ("{name} has {a} {things}. {name2} has {b} {things} and {c} {things2}. "
     "How many more {things} does {name} have than {name2}?",
     "{name} has [a - b] more {things}."),
    ("{name} has {c} {things2}. {name} made {a} {things} and gave {b} of them away. "
     "How many {things} does {name} have now?",
     "{name} now has [a - b] {things}."),
    # two steps
    ("{name} has {a} {things} and finds {b} more. Then {name} gives {c} of them to {name2}. "
     "How many {things} does {name} have now?",
     "First {name} has [a + b] {things}. Then {name} has [m - c] {things}."),
    ("{name} had {a} {things}, lost {b} of them and bought {c} new ones. How many {things} does {name} have now?",
     "After the loss {name} had [a - b] {things}. Now {name} has [m + c] {things}."),
    ("There were {a} {persons} on a bus. {b} got off and {c} got on. How many {persons} are on the bus now?",
     "First there were [a - b] {persons} left. Now there are [m + c] {persons}."),
    ("{name} had {a} {things}. {name} gave {b} to {name2} and {c} to {name3}. "
     "How many {things} does {name} have left?",
     "After the first gift there were [a - b] {things}. Now there are [m - c] {things} left."),
    ("{name} made {a} {things} on Monday, {b} on Tuesday and {c} on Friday. How many {things} is that in all?",
     "On Monday and Tuesday {name} made [a + b] {things}. In all that is [m + c] {things}."),
    ("{name} has {c} {things} and buys {a} bags with {b} {things} each. How many {things} does {name} have now?",
     "In the bags are [a * b] {things}. {name} now has [c + m] {things}."),
    ("{name} bought {a} packs of {b} {things} and used {c} of the {things}. How many {things} are left?",
     "{name} bought [a * b] {things}. There are [m - c] {things} left."),
    ("In a class are {a} boys and {b} girls. Each child gets {c} {things}. How many {things} are needed?",
     "In the class are [a + b] children. They need [m * c] {things}."),
    ("Of {a} {persons}, {b} stay at home. Each of the others brings {c} {things}. How many {things} is that?",
     "The others are [a - b] {persons}. They bring [m * c] {things}."),
    ("{name} puts {a} red and {b} blue {things} into {c} boxes, the same number in each. "
     "How many {things} are in each box?",
     "There are [a + b] {things}. In each box are [m / c] {things}."),
    ("Of {a} {things}, {b} are broken. {c} {persons} share the others equally. How many {things} does each get?",
     "The others are [a - b] {things}. Each gets [m / c] {things}."),
    ("{name} shares {a} bags of {b} {things} equally among {c} friends. How many {things} does each friend get?",
     "There are [a * b] {things}. Each friend gets [m / c] {things}."),
    ("{name} divides {a} {things} equally among {b} {persons}, who had {c} each before. "
     "How many {things} does each of them have now?",
     "Each gets [a / b] {things}. Now each has [m + c] {things}."),
    ("{b} {persons} share {a} {things} equally. Each of them loses {c}. How many {things} does each have left?",
     "Each gets [a / b] {things}. Each has [m - c] {things} left."),
    ("{b} {things} cost {a} dollars. How many dollars do {c} {things} cost?",
     "One costs [a / b] dollars. So {c} cost [m * c] dollars."),
    ("There are {a} rooms with {b} shelves in each. On each shelf are {c} {things}. How many {things} are there?",
     "There are [a * b] shelves. On them are [m * c] {things}."),
    ("{name} buys {a} {things} for {b} dollars each and pays with {c} dollars. "
     "How many dollars does {name} get back?",
     "The price is [a * b] dollars. {name} gets [c - m] dollars back."),
    ("{name} has {a} {things}. {name2} has {b} more than {name}. How many {things} do they have together?",
     "{name2} has [a + b] {things}. Together they have [a + m] {things}."),
    ("{name} has {a} {things}, and {name2} has {b} fewer. How many {things} do the two have together?",
     "{name2} has [a - b] {things}. Together they have [a + m] {things}."),
    ("{name} has {a} {things}. {name2} has {b} times as many. How many {things} do they have together?",
     "{name2} has [a * b] {things}. Together they have [a + m] {things}."),
    ("{name} has {a} {things}. {name2} has {b} times as many. How many more {things} does {name2} have?",
     "{name2} has [a * b] {things}. That is [m - a] more {things}."),
    ("A {thing} costs {c} dollars. {name} has {a} dollars and earns {b} more. "
     "How many dollars does {name} still need?",
     "{name} will have [a + b] dollars. {name} still needs [c - m] dollars."),
    ("{name} has {a} {things}. {b} are red, {c} are green and the others are blue. How many {things} are blue?",
     "Red or green are [b + c] {things}. Blue are [a - m] {things}."),
    ("{name} saves {b} dollars a week for a {thing} of {a} dollars and has {c} dollars so far. "
     "How many weeks does it take?",
     "{name} still needs [a - c] dollars. It takes [m / b] weeks."),
    ("{name} is {a} years old. {name2} is {b} years older. How old will {name2} be in {c} years?",
     "{name2} is [a + b] years old. In {c} years {name2} will be [m + c] years old."),
)  # fmt: skip


def draw_two_step_sums(count: int, seed: int, *, held_out: bool = False) -> list[TrainingRow]:
    """Draw distinct questions; see draw_sums(), also for the arguments and errors."""
    return distinct_rows(count, _generate(random.Random(f"two steps {seed} {held_out}"), held_out))  # noqa: S311


def _generate(rng: random.Random, held_out: bool) -> Iterator[TrainingRow]:
    decks = WordDecks(rng)
    while True:
        question, solution = rng.choice(_STORIES)
        numbers, sums = _draw_numbers(rng, _STEP.findall(solution), held_out)
        fields, answer = Fields(decks, numbers), sums[-1].rpartition(" ")[2]
        for written in sums:
            solution = _STEP.sub(written, solution, count=1)
        question, solution = question.format_map(fields), solution.format_map(fields)
        if len(check_steps(solution)) == len(sums):  # not so with "quarters", which are a fraction as well
            yield TrainingRow(question, solution, answer)


def _draw_numbers(
    rng: random.Random, steps: list[tuple[str, str, str]], held_out: bool
) -> tuple[dict[str, int], list[str]]:
    """Draw numbers for a story, and write its steps with them as sums with their results.

    The first sum of a held-out question is a held-out one; other questions have none.
    """
    factors = {letter for one, sign, other in steps for letter in one + other if sign == "*"}
    factors |= {other for _, sign, other in steps if sign == "/"}
    while True:
        numbers = {
            letter: rng.randint(2, _FACTOR_MAX if letter in factors else _ADDEND_MAX) for letter in _LETTERS
        }
        values, sums, held = dict(numbers), [], []
        for one, sign, other in steps:
            left, right = values[one], values[other]
            values["m"] = RESULTS[sign](left, right)
            held.append(is_held_out(sign, left, right))
            sums.append(f"{left} {sign} {right} = {values['m']}")
            if not 2 <= values["m"] <= _RESULT_MAX or (sign == "/" and left % right):
                break
        else:
            if held[0] if held_out else not any(held):
                return numbers, sums
