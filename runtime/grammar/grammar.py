"""Grammars that constrain an answer: GBNF, llama.cpp's grammar notation, or a JSON schema compiled to GBNF.

A grammar is refused if llama.cpp could not parse or honour it, or would not terminate on it, as with left
recursion behind a rule that may be empty. What llama.cpp would spend on it is computed here first.

One cost has no bound: llama.cpp follows all parses of a text at once, and in an ambiguous recursion such as
`a ::= "x" a "y" | "x" a "z" | "w"` they double with each character. Accept GBNF only from users who may also
stop the process; the grammar of a schema has few parses.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, Never

from ...errors import RequestError
from .gbnf_parser import CHARACTER, Item, Rule, parse_gbnf
from .json_schema import schema_to_gbnf

TEXT_MAX = 1 << 16  # bytes of a grammar or a schema
DEPTH_MAX = 1000  # rules that begin with one another; llama.cpp recurses once for each
STACKS_MAX = 1 << 12  # parse stacks at the start of a rule; llama.cpp compares each with each
WORK_MAX = 1 << 19  # at one position: parse stacks times consecutive items that may be empty
STEPS_MAX = 1 << 24  # of llama.cpp's search for left recursion

Rules = dict[str, Rule]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that llama.cpp can parse and honour.

    Attributes:
        text: rules in GBNF.
        root: name of the rule that the whole answer follows.

    Raises:
        RequestError: the grammar is malformed, exceeds a limit, is left-recursive, has a rule that can never
            end, or refers to tokens (`<[1]>`), which only a model's vocabulary could check.
    """

    text: str
    root: str = "root"

    def __post_init__(self) -> None:
        _check_size(self.text, "grammar")
        rules = parse_gbnf(self.text)
        _check_names(rules, self.root)
        if unproductive := rules.keys() - _closure(rules, {CHARACTER}):
            _fail(min(unproductive), "can never end")
        nullable = _closure(rules, set())
        _check_repetitions(rules, nullable)
        _check_costs(rules, nullable)


def from_gbnf(text: str) -> Grammar:
    """Make a grammar from GBNF, with `root` as its root rule.

    Raises:
        RequestError: see Grammar.
    """
    return Grammar(text)


def from_schema(schema: Mapping[str, object] | bool | str) -> Grammar:
    """Make a grammar of the JSON texts that are valid for a schema; json_schema.py lists its restrictions.

    Args:
        schema: JSON Schema, parsed or as JSON text. True and {} allow any value.

    Raises:
        RequestError: the schema is not JSON, is malformed or too large, or cannot be enforced.
    """
    try:
        plain = dict(schema) if isinstance(schema, Mapping) else schema
        text = plain if isinstance(plain, str) else json.dumps(plain, allow_nan=False)
        _check_size(text, "schema")
        value = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise RequestError(f"schema: not JSON at {position}: {error.msg}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"schema: not JSON: {error}") from None
    gbnf = schema_to_gbnf(value)
    try:
        return Grammar(gbnf)
    except RequestError as error:
        raise RequestError(f"schema: {error}") from None


def _finite(text: str) -> int | float:
    """Parse a number. A whole one becomes an int, because 1.0 and 1 are equal in a schema."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return int(value) if value.is_integer() else value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return values


def _check_size(text: object, source: str) -> None:
    if not isinstance(text, str):
        raise RequestError(f"{source}: must be a string, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(f"{source}: lone surrogate at character {error.start}") from None
    if size > TEXT_MAX:
        raise RequestError(f"{source}: {size} bytes are more than {TEXT_MAX}")


def _fail(name: str, message: str) -> Never:
    rule = name.partition("_")[0][:40]  # of a group: the rule around it
    raise RequestError(f"grammar: rule {rule} {message}")


def _check_names(rules: Rules, root: str) -> None:
    if root not in rules:
        raise RequestError(f"grammar: rule {root[:40]!r} is not defined")
    for name, rule in rules.items():
        symbols = {item.symbol for items in rule.alternatives for item in items}
        if undefined := symbols - rules.keys() - {CHARACTER}:
            _fail(name, f"uses {min(undefined)[:40]!r}, which is not defined")


def _closure(rules: Rules, known: set[str]) -> set[str]:
    """Return the rules with an alternative whose mandatory symbols are all in `known` or in this set.

    With the terminals known, these are the productive rules; with nothing known, the nullable ones.
    """
    owners: list[str] = []
    missing: list[int] = []
    users: defaultdict[str, list[int]] = defaultdict(list)
    for name, rule in rules.items():
        for items in rule.alternatives:
            needed = {item.symbol for item in items if not item.optional} - known
            for symbol in needed:
                users[symbol].append(len(owners))
            owners.append(name)
            missing.append(len(needed))
    closure: set[str] = set()
    ready = [owner for owner, count in zip(owners, missing, strict=True) if not count]
    while ready:
        name = ready.pop()
        for user in users.pop(name, ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(owners[user])
        closure.add(name)
    return closure


def _check_repetitions(rules: Rules, nullable: set[str]) -> None:
    for name, rule in rules.items():
        if any(item.copies > 1 and item.symbol in nullable for items in rule.alternatives for item in items):
            _fail(name, "repeats an item that may be empty")


class _Cost(NamedTuple):
    """What llama.cpp spends to begin a symbol: recursion depth, parse stacks, left-recursion search steps."""

    depth: int = 0
    stacks: int = 1
    steps: int = 0


def _check_costs(rules: Rules, nullable: set[str]) -> None:
    """Check what llama.cpp spends at the start of each rule and at each position of its alternatives."""
    costs = _start_costs(rules, nullable)
    alternatives = [(name, items) for name, rule in rules.items() for items in rule.alternatives]
    for name, items in alternatives:
        if (work := _largest_work(items, costs, nullable)) > WORK_MAX:
            _fail(name, f"has too many continuations: {work} are more than {WORK_MAX}")
    steps = sum(cost.steps for cost in costs.values())
    steps += sum(item.copies * costs[item.symbol].steps for _, items in alternatives for item in items)
    if steps > STEPS_MAX:
        raise RequestError(f"grammar: {steps} steps to search for left recursion are more than {STEPS_MAX}")


def _start_costs(rules: Rules, nullable: set[str]) -> dict[str, _Cost]:
    corners = {name: [*_left_corners(rule, nullable)] for name, rule in rules.items()}
    try:
        order = list(TopologicalSorter({name: set(corners[name]) for name in rules}).static_order())
    except CycleError as error:
        _fail(error.args[1][0], "is left-recursive")
    costs = {CHARACTER: _Cost()}
    for name in (name for name in order if name != CHARACTER):
        inner = [costs[symbol] for symbol in corners[name]]
        depth = 1 + max((cost.depth for cost in inner), default=0)
        stacks = 1 + sum(cost.stacks for cost in inner)
        costs[name] = _Cost(depth, stacks, rules[name].elements + sum(cost.steps for cost in inner))
        if depth > DEPTH_MAX or stacks > STACKS_MAX:
            limits = f"the limits are {STACKS_MAX} and {DEPTH_MAX}"
            _fail(name, f"begins with {stacks} parse stacks, {depth} rules deep; {limits}")
    return costs


def _left_corners(rule: Rule, nullable: set[str]) -> Iterator[str]:
    """Yield the symbols that an expansion of the rule can begin with."""
    for items in rule.alternatives:
        for item in items:
            yield item.symbol
            if not item.optional and item.symbol not in nullable:
                break


def _largest_work(items: list[Item], costs: dict[str, _Cost], nullable: set[str]) -> int:
    """Return the largest product of parse stacks and consecutive items that may be empty."""
    largest = stacks = consecutive = 0
    for item in items:
        stacks, consecutive = stacks + costs[item.symbol].stacks, consecutive + 1
        largest = max(largest, stacks * consecutive)
        if not item.optional and item.symbol not in nullable:
            stacks, consecutive = (costs[item.symbol].stacks, 1) if item.copies > 1 else (0, 0)
    return largest
