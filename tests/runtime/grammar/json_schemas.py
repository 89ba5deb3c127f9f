"""Hypothesis strategies for enforceable JSON schemas and their valid values, and an independent validator."""

import re
from datetime import date, datetime, time

from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 6)).map(lambda x: int(x) if x.is_integer() else x)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**17), 10**17), NUMBERS, TEXTS)
VALUES = st.recursive(
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
FORMATS = {
    "date": st.dates(date(1000, 1, 1)).map(str),
    "time": st.times().map(lambda t: t.isoformat() + "Z"),
    "date-time": st.datetimes(datetime(1000, 1, 1)).map(lambda t: t.isoformat() + "+01:30"),
    "uuid": st.uuids().map(str),
}
BOUNDS = st.integers(-1200, 1200) | st.integers(-(10**17), 10**17)


@st.composite
def bounds(draw, low, high, values, extra=()):
    schema = {key: draw(values) for key in draw(st.sets(st.sampled_from([low, high, *extra])))}
    if low in schema and high in schema and schema[low] > schema[high]:
        schema[low], schema[high] = schema[high], schema[low]
    return schema


@st.composite
def objects(draw, inner):
    properties = draw(st.dictionaries(TEXTS, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required}


@st.composite
def arrays(draw, inner):
    schema = {"type": "array"} | draw(bounds("minItems", "maxItems", st.integers(0, 4)))
    if draw(st.booleans()):
        schema["items"] = draw(inner)
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, max_size=3))
    return schema


LEAVES = st.one_of(
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
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        inner.map(lambda schema: {"type": "object", "additionalProperties": schema}),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
    ),
    max_leaves=8,
)


def valid_values(schema):
    """Values that are valid and that the grammar can produce: properties in order, and no others."""
    if schema in (True, {}):
        return VALUES
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([valid_values(branch) for branch in schema["anyOf"]])
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([TYPED[name](schema) for name in names])


def _strings(schema):
    if "format" in schema:
        return FORMATS[schema["format"]]
    if "pattern" in schema:
        printable = st.characters(exclude_categories=("Cc", "Cs"))
        return st.from_regex(re.compile(schema["pattern"][:-1] + r"\Z", re.ASCII), alphabet=printable)
    character = st.characters(exclude_categories=("Cs",))
    return st.text(character, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 8))


def _integers(schema):
    low, high = schema.get("minimum"), schema.get("maximum")
    low = schema.get("exclusiveMinimum", low - 1 if low is not None else -(10**18))
    high = schema.get("exclusiveMaximum", high + 1 if high is not None else 10**18)
    return st.integers(low + 1, high - 1)


def _numbers(schema):
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low, high) == (None, None):
        return NUMBERS
    low, high = -(10**17) if low is None else low, 10**17 if high is None else high
    within = st.floats(float(low), float(high)).map(lambda x: round(x, 3)).filter(lambda x: low <= x <= high)
    return st.integers(low, high) | within.filter(lambda x: "e" not in repr(x))


def _objects(schema):
    if "properties" not in schema:
        return st.dictionaries(TEXTS, valid_values(schema.get("additionalProperties", True)), max_size=3)
    values = {name: valid_values(inner) for name, inner in schema["properties"].items()}
    required = {name: values[name] for name in values if name in schema["required"]}
    optional = {name: values[name] for name in values if name not in required}
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda value: {name: value[name] for name in schema["properties"] if name in value}
    )


@st.composite
def _arrays(draw, schema):
    prefix = schema.get("prefixItems", [])
    size = draw(st.integers(schema.get("minItems", 0), schema.get("maxItems", schema.get("minItems", 0) + 4)))
    items = [prefix[i] if i < len(prefix) else schema.get("items", True) for i in range(size)]
    return [draw(valid_values(item)) for item in items]


TYPED = {
    "null": lambda _: st.none(),
    "boolean": lambda _: st.booleans(),
    "string": _strings,
    "integer": _integers,
    "number": _numbers,
    "object": _objects,
    "array": _arrays,
}
CLASSES = {
    "null": type(None),
    "boolean": bool,
    "string": str,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
}


def json_equal(a, b):
    """Return whether two JSON values are equal; in Python, True equals 1."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(a[key], b[key]) for key in a)
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def is_valid(value, schema):
    """Return whether a value is valid by JSON Schema, independent of the grammar."""
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


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matches(value, schema):
    return re.search(schema["pattern"][:-1] + r"\Z", value, re.ASCII) is not None


def _has_format(value, schema):
    parse = {"date": date.fromisoformat, "time": time.fromisoformat, "date-time": datetime.fromisoformat}
    if schema["format"] == "uuid":
        return re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is not None
    try:
        parse[schema["format"]](value)
    except ValueError:
        return False
    return True


def _check(class_, holds):
    """Make a check that holds for values of other types."""
    return lambda value, schema: not isinstance(value, class_) or holds(value, schema)


CHECKS = {
    "minLength": _check(str, lambda value, schema: len(value) >= schema["minLength"]),
    "maxLength": _check(str, lambda value, schema: len(value) <= schema["maxLength"]),
    "pattern": _check(str, _matches),
    "format": _check(str, _has_format),
    "minimum": lambda value, schema: not _is_number(value) or value >= schema["minimum"],
    "maximum": lambda value, schema: not _is_number(value) or value <= schema["maximum"],
    "exclusiveMinimum": lambda value, schema: not _is_number(value) or value > schema["exclusiveMinimum"],
    "exclusiveMaximum": lambda value, schema: not _is_number(value) or value < schema["exclusiveMaximum"],
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
