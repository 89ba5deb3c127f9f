"""Hypothesis strategies for enforceable JSON schemas and their valid values, and an independent validator."""

import re
from collections.abc import Callable
from datetime import date, datetime, time
from operator import ge, gt, le, lt
from typing import Any, TypeGuard, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

T = TypeVar("T")
Json = None | bool | float | str | list["Json"] | dict[str, "Json"]
SchemaObject = dict[str, Any]  # keywords of a JSON schema
Schema = bool | SchemaObject
Check = Callable[[Json, SchemaObject], bool]

# A grammar's strings have DEL only escaped, though JSON would allow it.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
TEXTS = st.text(CHARACTERS, max_size=6)
# Without exponents: llguidance writes a listed 6.1e-05 as 6.1e-5, and takes no other spelling.
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 4)).map(lambda x: int(x) if x.is_integer() else x)
SCALARS: SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**17), 10**17), NUMBERS, TEXTS
)
VALUES: SearchStrategy[Json] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PATTERNS = [
    "^$",
    "^a$",
    r"^[A-Z]{2}-\d+$",
    r'^[^a-z"]*x?$',
    r"^\+?[1-9]\d{1,4}$",
    r"^.{2,3}$",
    r'^["\\/é😀]+$',
    r"^\S\w$",
]
FORMATS: dict[str, SearchStrategy[str]] = {
    "date": st.dates(date(1000, 1, 1)).map(str),
    "time": st.times().map(lambda t: t.isoformat() + "Z"),
    "date-time": st.datetimes(datetime(1000, 1, 1)).map(lambda t: t.isoformat() + "+01:30"),
    "uuid": st.uuids().map(str),
}
BOUNDS = st.integers(-1200, 1200) | st.integers(-(10**17), 10**17)


@st.composite
def bounds(draw: DrawFn, low: str, high: str, values: SearchStrategy[int]) -> dict[str, int]:
    schema = {key: draw(values) for key in draw(st.sets(st.sampled_from([low, high])))}
    if low in schema and high in schema and schema[low] > schema[high]:
        schema[low], schema[high] = schema[high], schema[low]
    return schema


@st.composite
def objects(draw: DrawFn, inner: SearchStrategy[Schema]) -> SchemaObject:
    properties = draw(st.dictionaries(TEXTS, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required}


@st.composite
def arrays(draw: DrawFn, inner: SearchStrategy[Schema]) -> SchemaObject:
    schema: SchemaObject = {"type": "array"} | draw(bounds("minItems", "maxItems", st.integers(0, 4)))
    if draw(st.booleans()):
        schema["items"] = draw(inner)
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, max_size=3))
    return schema


LEAVES: SearchStrategy[Schema] = st.one_of(
    st.just({}),
    st.just(True),
    st.sampled_from(["null", "boolean", "string", "number", "integer"]).map(lambda name: {"type": name}),
    st.lists(VALUES, min_size=1, max_size=5).map(lambda values: {"enum": values}),
    VALUES.map(lambda value: {"const": value}),
    bounds("minLength", "maxLength", st.integers(0, 5)).map(lambda keywords: {"type": "string"} | keywords),
    bounds("minimum", "maximum", BOUNDS).map(lambda keywords: {"type": "number"} | keywords),
    bounds("minimum", "maximum", BOUNDS).map(lambda keywords: {"type": "integer"} | keywords),
    st.integers(-30, 30).map(lambda x: {"type": "integer", "exclusiveMinimum": x, "exclusiveMaximum": x + 2}),
    st.sampled_from(PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from([*FORMATS]).map(lambda name: {"type": "string", "format": name}),
    st.just({"type": ["string", "null"], "maxLength": 2, "title": "t"}),
)
SCHEMAS: SearchStrategy[Schema] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        inner.map(lambda schema: {"type": "object", "additionalProperties": schema}),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
    ),
    max_leaves=8,
)


def _any_keywords(inner: SearchStrategy[Schema]) -> SearchStrategy[Schema]:
    names, numbers, counts = (
        st.sampled_from("abc"),
        st.integers(-100, 100).map(lambda x: x / 2),
        st.integers(0, 5),
    )
    keywords: dict[str, SearchStrategy[Any]] = {
        "type": st.sampled_from([*CLASSES]) | st.lists(st.sampled_from([*CLASSES]), min_size=1, unique=True),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers),
        "multipleOf": st.sampled_from([0.5, 1, 2, 3, 7.5, 20]),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties"), counts),
        "uniqueItems": st.booleans(),
        "pattern": st.sampled_from(["a", "^[b-d]+$", "^(x|yz)?$", "e{2,3}$", "^.$"]),
        "format": st.sampled_from(["date", "time", "ipv4", "ipv6", "email", "uri"]),
        **dict.fromkeys(("properties", "patternProperties"), st.dictionaries(names, inner, max_size=3)),
        "required": st.lists(names, unique=True),
        **dict.fromkeys(("items", "additionalProperties", "not", "contains", "if", "then"), inner),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), st.lists(inner, min_size=1, max_size=3)),
        "enum": st.lists(VALUES, min_size=1, max_size=4),
        "const": VALUES,
    }
    chosen = st.sets(st.sampled_from([*keywords]), min_size=1, max_size=4)
    return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: keywords[key] for key in sorted(keys)}))


def any_keywords() -> SearchStrategy[Schema]:
    """Return a strategy of schemas whose keywords may contradict each other, or be unknown to us."""
    return st.recursive(LEAVES, _any_keywords, max_leaves=6)


def valid_values(schema: Schema) -> SearchStrategy[Json]:
    """Return a strategy of values that are valid and that the grammar can produce.

    The grammar writes the properties of an object in the order of the schema, and no others.
    """
    assert schema is not False, "no value is valid"
    if schema is True or not schema:
        return VALUES
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([valid_values(branch) for branch in schema["anyOf"]])
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([TYPED[name](schema) for name in names])


def _strings(schema: SchemaObject) -> SearchStrategy[str]:
    if "format" in schema:
        return FORMATS[schema["format"]]
    if "pattern" in schema:
        printable = st.characters(exclude_categories=["Cc", "Cs"])
        return st.from_regex(re.compile(schema["pattern"][:-1] + r"\Z", re.ASCII), alphabet=printable)
    return st.text(CHARACTERS, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 8))


def _integers(schema: SchemaObject) -> SearchStrategy[int]:
    low = schema.get("exclusiveMinimum", schema.get("minimum", 1 - 10**18) - 1)
    high = schema.get("exclusiveMaximum", schema.get("maximum", 10**18 - 1) + 1)
    return st.integers(low + 1, high - 1)


def _numbers(schema: SchemaObject) -> SearchStrategy[float]:
    if not schema.keys() & {"minimum", "maximum"}:
        return NUMBERS
    low, high = schema.get("minimum", -(10**17)), schema.get("maximum", 10**17)
    within = st.floats(float(low), float(high)).map(lambda x: round(x, 3)).filter(lambda x: low <= x <= high)
    return st.integers(low, high) | within.filter(lambda x: "e" not in repr(x) and not x.is_integer())


def _objects(schema: SchemaObject) -> SearchStrategy[dict[str, Json]]:
    if "properties" not in schema:
        return st.dictionaries(TEXTS, valid_values(schema.get("additionalProperties", True)), max_size=3)
    values = {name: valid_values(inner) for name, inner in schema["properties"].items()}
    required = {name: values[name] for name in values if name in schema["required"]}
    optional = {name: values[name] for name in values if name not in required}
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda value: {name: value[name] for name in schema["properties"] if name in value}
    )


@st.composite
def _arrays(draw: DrawFn, schema: SchemaObject) -> list[Json]:
    prefix = schema.get("prefixItems", [])
    size = draw(st.integers(schema.get("minItems", 0), schema.get("maxItems", schema.get("minItems", 0) + 4)))
    items = [prefix[i] if i < len(prefix) else schema.get("items", True) for i in range(size)]
    return [draw(valid_values(item)) for item in items]


TYPED: dict[str, Callable[[SchemaObject], SearchStrategy[Json]]] = {
    "null": lambda _: st.none(),
    "boolean": lambda _: st.booleans(),
    "string": _strings,
    "integer": _integers,
    "number": _numbers,
    "object": _objects,
    "array": _arrays,
}
CLASSES: dict[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
}


def json_equal(a: Json, b: Json) -> bool:
    """Return whether two JSON values are equal; in Python, True equals 1."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(a[key], b[key]) for key in a)
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def is_valid(value: Json, schema: Schema) -> bool:
    """Return whether a value is valid for a schema, without use of the grammar."""
    if isinstance(schema, bool):
        return schema
    names = schema.get("type", [*CLASSES])
    names = [names] if isinstance(names, str) else names
    return (
        any(
            isinstance(value, CLASSES[name]) and (name == "boolean" or not isinstance(value, bool))
            for name in names
        )
        and ("enum" not in schema or any(json_equal(value, listed) for listed in schema["enum"]))
        and ("const" not in schema or json_equal(value, schema["const"]))
        and ("anyOf" not in schema or any(is_valid(value, branch) for branch in schema["anyOf"]))
        and ("oneOf" not in schema or sum(is_valid(value, branch) for branch in schema["oneOf"]) == 1)
        and all(CHECKS[key](value, schema) for key in schema.keys() & CHECKS.keys())
    )


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matches(value: str, schema: SchemaObject) -> bool:
    return re.search(schema["pattern"][:-1] + r"\Z", value, re.ASCII) is not None


def _has_format(value: str, schema: SchemaObject) -> bool:
    parse: dict[str, Callable[[str], object]] = {
        "date": date.fromisoformat,
        "time": time.fromisoformat,
        "date-time": datetime.fromisoformat,
    }
    if schema["format"] == "uuid":
        return re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is not None
    try:
        parse[schema["format"]](value)
    except ValueError:
        return False
    return True


def _check(class_: type[T], holds: Callable[[T, SchemaObject], bool]) -> Check:
    """Return a check that ignores values of other types."""
    return lambda value, schema: not isinstance(value, class_) or holds(value, schema)


def _number_check(keyword: str, compare: Callable[[float, float], bool]) -> Check:
    return lambda value, schema: not _is_number(value) or compare(value, schema[keyword])


CHECKS: dict[str, Check] = {
    "minLength": _check(str, lambda value, schema: len(value) >= schema["minLength"]),
    "maxLength": _check(str, lambda value, schema: len(value) <= schema["maxLength"]),
    "pattern": _check(str, _matches),
    "format": _check(str, _has_format),
    "minimum": _number_check("minimum", ge),
    "maximum": _number_check("maximum", le),
    "exclusiveMinimum": _number_check("exclusiveMinimum", gt),
    "exclusiveMaximum": _number_check("exclusiveMaximum", lt),
    "minItems": _check(list, lambda value, schema: len(value) >= schema["minItems"]),
    "maxItems": _check(list, lambda value, schema: len(value) <= schema["maxItems"]),
    "prefixItems": _check(list, lambda value, schema: all(map(is_valid, value, schema["prefixItems"]))),
    "items": _check(
        list,
        lambda value, schema: all(
            is_valid(item, schema["items"]) for item in value[len(schema.get("prefixItems", ())) :]
        ),
    ),
    "required": _check(dict, lambda value, schema: all(name in value for name in schema["required"])),
    "properties": _check(
        dict,
        lambda value, schema: all(
            is_valid(value[name], inner) for name, inner in schema["properties"].items() if name in value
        ),
    ),
    "additionalProperties": _check(
        dict,
        lambda value, schema: all(
            is_valid(inner, schema["additionalProperties"])
            for name, inner in value.items()
            if name not in schema.get("properties", ())
        ),
    ),
}
