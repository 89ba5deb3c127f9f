"""Overlap of the branches of a union (`anyOf`, `oneOf`): whether they share values or prefixes of texts."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

_PROPERTY_DEPTH_MAX = 8  # nested properties that are compared

Resolve = Callable[[object], object]  # follows a `$ref`; returns any other schema unchanged
JSON_TYPES = {  # of the results of json.loads(); an integer is a number
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}
_ALL_TYPES = frozenset(JSON_TYPES.values())


def compact_json(value: object) -> str:
    """Write a value as the grammar does, without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def are_disjoint(left: object, right: object, resolve: Resolve, depth: int = 0) -> bool:
    """Return whether provably no value is valid for both schemas."""
    a, b = resolve(left), resolve(right)
    if (verdict := _compare_types_and_values(a, b)) is not None:
        return verdict
    shared = _required(a) & _required(b) if depth < _PROPERTY_DEPTH_MAX else set()
    p, q = _properties(a), _properties(b)
    return any(are_disjoint(p[name], q[name], resolve, depth + 1) for name in shared)


def differ_early(left: object, right: object, resolve: Resolve, depth: int = 0) -> bool:
    """Return whether texts of the two schemas provably differ before a part of unbounded length begins."""
    a, b = resolve(left), resolve(right)
    if (verdict := _compare_types_and_values(a, b)) is not None:
        return verdict
    (first, p), (second, q) = (next(iter(_properties(schema).items())) for schema in (a, b))
    if first not in _required(a) or second not in _required(b) or depth == _PROPERTY_DEPTH_MAX:
        return False
    return first != second or differ_early(p, q, resolve, depth + 1)


def max_parses(children: Mapping[str, Sequence[str]], overlapping: Set[str], limit: int) -> int:
    """Bound the number of parses of one text that can be active at once.

    Args:
        children: the rules of the subschemas of each rule; normally a text is inside one of them at a time.
        overlapping: rules whose children can all match the same text at once.
        limit: number at which counting stops; a rule above it is not propagated further.
    """
    parents: defaultdict[str, list[str]] = defaultdict(list)
    for name, rules in children.items():
        for rule in rules:
            parents[rule].append(name)
    parses = dict.fromkeys(children, 1)
    pending = dict.fromkeys(children)
    while pending:
        name = next(iter(pending))
        del pending[name]
        counts = [parses.get(rule, 1) for rule in children[name]]
        count = sum(counts) if name in overlapping else max(counts, default=1)
        if count > parses[name]:
            parses[name] = count
            pending |= dict.fromkeys(parents[name] if count <= limit else ())
    return max(parses.values(), default=1)


def _compare_types_and_values(a: object, b: object) -> bool | None:
    """Return whether types or listed values tell the schemas apart; None if only their properties could."""
    if not _types(a) & _types(b):
        return True
    left, right = _listed_values(a), _listed_values(b)
    if left is not None and right is not None:
        return not {*map(compact_json, left)} & {*map(compact_json, right)}
    are_objects = all(_types(schema) == {"object"} and _properties(schema) for schema in (a, b))
    return None if are_objects else False


def _listed_values(schema: object) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: object) -> frozenset[str]:
    """The types of valid values, with integers as numbers."""
    named = schema.get("type", _ALL_TYPES) if isinstance(schema, dict) else _ALL_TYPES
    types = frozenset({named} if isinstance(named, str) else named)
    if "integer" in types:
        types = types - {"integer"} | {"number"}
    values = _listed_values(schema)
    return types if values is None else types & {JSON_TYPES[type(value)] for value in values}


def _properties(schema: object) -> dict[str, Any]:
    return schema.get("properties", {}) if isinstance(schema, dict) else {}


def _required(schema: object) -> set[str]:
    """The declared properties that a valid object must have."""
    return {*schema.get("required", ())} & {*_properties(schema)} if isinstance(schema, dict) else set()
