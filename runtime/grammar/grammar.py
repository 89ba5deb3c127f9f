"""What a reply may say, as a grammar: one in GBNF, llama.cpp's notation, or the one of a JSON schema.

A grammar is refused if the library could not take or honour it, or would not come to an end on it, as with a
rule that begins with itself behind one that may be empty. What the library would do is counted here first.

One thing cannot be counted: the library follows all readings of a text at once, and in an ambiguous recursion
such as `a ::= "x" a "y" | "x" a "z" | "w"` they double with each character. So GBNF is for those who may as
well stop the process; the grammar of a schema has few readings.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from ...errors import RequestError
from .gbnf import CHARACTER, Item, Rule, read_gbnf
from .json_schema import to_gbnf

TEXT_MAX = 1 << 16  # bytes, of a grammar and of a schema
DEPTH_MAX = 1000  # rules that begin with one another: the library calls itself for each
WAYS_MAX = 1 << 12  # to begin a rule: the library compares each with each
WORK_MAX = 1 << 19  # at one place: ways to go on, times the items in a row that may be left out
STEPS_MAX = 1 << 24  # of the library's search for rules that begin with themselves

Rules = dict[str, Rule]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that llama.cpp can take and honour.

    Attributes:
        text: its rules in GBNF.
        root: the rule that a whole reply follows.

    Raises:
        RequestError: the grammar is wrong or beyond the bounds, has a rule that begins with itself or can
            never end, or names tokens (`<[1]>`), which only a model's vocabulary could check.
    """

    text: str
    root: str = "root"

    def __post_init__(self) -> None:
        _check_size(self.text, "grammar")
        rules = read_gbnf(self.text)
        _check_names(rules, self.root)
        if endless := rules.keys() - _least(rules, {CHARACTER}):
            raise RequestError(f"grammar: rule {_named(min(endless))} can never end")
        empty = _least(rules, set())
        _check_repetitions(rules, empty)
        _check_beginnings(rules, empty)


def from_gbnf(text: str) -> Grammar:
    """The grammar that is written in `text`, whose replies follow its rule `root`.

    Raises:
        RequestError: see Grammar.
    """
    return Grammar(text)


def from_schema(schema: Mapping[str, object] | bool | str) -> Grammar:
    """The grammar of texts that are valid by a JSON schema; json_schema.py says of which schemas.

    Args:
        schema: the schema, or its JSON text. True and {} stand for any value.

    Raises:
        RequestError: the schema is not JSON, is wrong or too large, or says what cannot be enforced.
    """
    try:
        plain = dict(schema) if isinstance(schema, Mapping) else schema
        text = plain if isinstance(plain, str) else json.dumps(plain, allow_nan=False)
        _check_size(text, "schema")
        value = json.loads(text, parse_float=_number, parse_constant=_number, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise RequestError(f"schema: not JSON at {where}: {error.msg}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"schema: not JSON: {error}") from None
    gbnf = to_gbnf(value)
    try:
        return Grammar(gbnf)
    except RequestError as error:
        raise RequestError(f"schema: {error}") from None


def _number(text: str) -> int | float:
    """A number; a whole one is an int, as 1.0 and 1 are the same in a schema."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no number")
    return int(value) if value.is_integer() else value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def _check_size(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise RequestError(f"{what}: a text is expected, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(f"{what}: half of a surrogate pair stands at character {error.start}") from None
    if size > TEXT_MAX:
        raise RequestError(f"{what}: {size} bytes are more than {TEXT_MAX}")


def _named(name: str) -> str:
    """A rule's name for a message; brackets have that of the rule around them."""
    return name.partition("_")[0][:40]


def _check_names(rules: Rules, root: str) -> None:
    if root not in rules:
        raise RequestError(f"grammar: there is no rule {root[:40]!r}")
    for name, rule in rules.items():
        targets = {item.target for items in rule.alternatives for item in items}
        if unknown := targets - rules.keys() - {CHARACTER}:
            raise RequestError(f"grammar: rule {_named(name)} holds {min(unknown)[:40]}, which is no rule")


def _least(rules: Rules, given: set[str]) -> set[str]:
    """The rules with an alternative of which all that must be there is such a rule, or is given."""
    owners: list[str] = []
    missing: list[int] = []
    users: defaultdict[str, list[int]] = defaultdict(list)
    for name, rule in rules.items():
        for items in rule.alternatives:
            needs = {item.target for item in items if not item.skippable} - given
            for need in needs:
                users[need].append(len(owners))
            owners.append(name)
            missing.append(len(needs))
    found: set[str] = set()
    ready = [owner for owner, count in zip(owners, missing, strict=True) if not count]
    while ready:
        name = ready.pop()
        for user in users.pop(name, ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(owners[user])
        found.add(name)
    return found


def _check_repetitions(rules: Rules, empty: set[str]) -> None:
    for name, rule in rules.items():
        if any(item.times > 1 and item.target in empty for items in rule.alternatives for item in items):
            raise RequestError(f"grammar: rule {_named(name)} repeats what may be empty")


def _check_beginnings(rules: Rules, empty: set[str]) -> None:
    """Count what the library does to find how a text can begin, and how it can go on from a place."""
    heads = {name: [*_heads(rule, empty)] for name, rule in rules.items()}
    try:
        order = list(TopologicalSorter({name: set(heads[name]) for name in rules}).static_order())
    except CycleError as error:
        raise RequestError(f"grammar: rule {_named(error.args[1][0])} begins with itself") from None
    depth, ways, steps = {CHARACTER: 0}, {CHARACTER: 1}, {CHARACTER: 0}
    for name in (name for name in order if name != CHARACTER):
        depth[name] = 1 + max((depth[head] for head in heads[name]), default=0)
        ways[name] = 1 + sum(ways[head] for head in heads[name])
        steps[name] = rules[name].size + sum(steps[head] for head in heads[name])
        if depth[name] > DEPTH_MAX or ways[name] > WAYS_MAX:
            raise RequestError(
                f"grammar: rule {_named(name)} can begin in {ways[name]} ways, {depth[name]} rules deep; "
                f"the most are {WAYS_MAX} and {DEPTH_MAX}"
            )
    parts = [(name, items) for name, rule in rules.items() for items in rule.alternatives]
    for name, items in parts:
        if (work := _work(items, ways, empty)) > WORK_MAX:
            raise RequestError(
                f"grammar: rule {_named(name)} can go on in too many ways: {work} of {WORK_MAX}"
            )
    total = sum(steps.values()) + sum(item.times * steps[item.target] for _, items in parts for item in items)
    if total > STEPS_MAX:
        raise RequestError(
            f"grammar: {total} steps to find how its rules can begin; the most are {STEPS_MAX}"
        )


def _heads(rule: Rule, empty: set[str]) -> Iterator[str]:
    """What a rule can begin with."""
    for items in rule.alternatives:
        for item in items:
            yield item.target
            if not item.skippable and item.target not in empty:
                break


def _work(items: list[Item], ways: dict[str, int], empty: set[str]) -> int:
    """What there is to do at the place of an alternative where it is most."""
    most = here = row = 0
    for item in items:
        here, row = here + ways[item.target], row + 1
        most = max(most, here * row)
        if not item.skippable and item.target not in empty:
            here, row = (ways[item.target], 1) if item.times > 1 else (0, 0)
    return most
