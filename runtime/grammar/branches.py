"""Whether two schemas of a union can be told apart: by all of a value, or by how its text begins."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

DEPTH_MAX = 8  # properties in properties

Follow = Callable[[object], object]  # gives the schema that a `$ref` leads to, and any other as it is
_PYTHON_TYPES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}
_TYPES = frozenset(_PYTHON_TYPES.values())


def written(value: object) -> str:
    """A value as the grammar writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def exclude(one: object, other: object, follow: Follow, depth: int = 0) -> bool:
    """Whether surely no value is valid by both schemas."""
    a, b = follow(one), follow(other)
    if (plain := _plainly(a, b)) is not None:
        return plain
    shared = _required(a) & _required(b) if depth < DEPTH_MAX else set()
    p, q = _properties(a), _properties(b)
    return any(exclude(p[key], q[key], follow, depth + 1) for key in shared)


def part(one: object, other: object, follow: Follow, depth: int = 0) -> bool:
    """Whether texts of the two surely differ before there is anything in them that could be long."""
    a, b = follow(one), follow(other)
    if (plain := _plainly(a, b)) is not None:
        return plain
    (first, p), (second, q) = (next(iter(_properties(schema).items())) for schema in (a, b))
    if first not in _required(a) or second not in _required(b) or depth == DEPTH_MAX:
        return False
    return first != second or part(p, q, follow, depth + 1)


def most_readings(parts: Mapping[str, Sequence[str]], together: Set[str], limit: int) -> int:
    """In how many ways a text can be understood at once, at most; beyond the limit it is not counted on.

    Args:
        parts: of each schema those in it, of which a text is of one at a time;
        together: but of these schemas it may be of all at once.
        limit: where to stop.
    """
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name, inner in parts.items():
        for part_ in inner:
            users[part_].append(name)
    readings = dict.fromkeys(parts, 1)
    pending = dict.fromkeys(parts)
    while pending:
        name = next(iter(pending))
        del pending[name]
        counts = [readings.get(part_, 1) for part_ in parts[name]]
        count = sum(counts) if name in together else max(counts, default=1)
        if count > readings[name]:
            readings[name] = count
            pending |= dict.fromkeys(users[name] if count <= limit else ())
    return max(readings.values(), default=1)


def _plainly(a: object, b: object) -> bool | None:
    """Whether types or given values tell them apart; None if only their properties could."""
    if not _types(a) & _types(b):
        return True
    some, others = _values(a), _values(b)
    if some is not None and others is not None:
        return not {*map(written, some)} & {*map(written, others)}
    objects = all(_types(schema) == {"object"} and _properties(schema) for schema in (a, b))
    return None if objects else False


def _values(schema: object) -> list[Any] | None:
    if not isinstance(schema, dict):
        return None
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _types(schema: object) -> frozenset[str]:
    """The types that what is valid may have."""
    named = schema.get("type", _TYPES) if isinstance(schema, dict) else _TYPES
    types = frozenset({named} if isinstance(named, str) else named)
    if "integer" in types:
        types = types - {"integer"} | {"number"}
    values = _values(schema)
    return types if values is None else types & {_PYTHON_TYPES[type(value)] for value in values}


def _properties(schema: object) -> dict[str, Any]:
    return schema.get("properties", {}) if isinstance(schema, dict) else {}


def _required(schema: object) -> set[str]:
    """The properties that an object surely has."""
    return {*schema.get("required", ())} & {*_properties(schema)} if isinstance(schema, dict) else set()
